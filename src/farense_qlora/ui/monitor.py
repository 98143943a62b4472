"""Follow a run in a terminal, beside the notebook or over ssh; only reads the run folder."""

import time
from collections.abc import Sequence
from math import ceil

import plotext
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..config import RUNS
from ..errors import UserError
from ..text import decimal
from ..training.events import Evaluated, Event, Stepped, of, sentences
from ..training.overview import STATUS, Overview, overview
from ..training.run import ENDED, Run, all_runs
from .figures import smooth

SECONDS_BETWEEN_REDRAWS = 1.0
TRAIN, VALIDATION = 39, 208  # of the 256 colours: blue and orange, on black and on white
COLUMN, LOWEST_PLOT = 38, 7
HEIGHT_ELSEWHERE = 22  # on the ordinary screen, with the command above and the prompt below


def monitor(name: str | None = None) -> None:
    """Draw the run `name`, or the one under way, until it comes to its end; waits for one that is not there
    yet, and for a worker that died or was stopped to be started again. Ctrl-C leaves the run as it is."""
    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:  # nothing to draw on twice
        show_once(Run.open(name) if name else newest(), console)
        return
    run: Run | None = None
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                run = _wanted(name, run)
                if run is None:
                    what = f"do treino «{name}»" if name else "de um treino"
                    live.update(Text(f"à espera {what}… (Ctrl-C sai)", style="dim"), refresh=True)
                else:
                    events = run.events()
                    now = overview(run, events)
                    live.update(screen(now, events, console.width, console.height), refresh=True)
                    if now.status in ENDED:
                        break
                time.sleep(SECONDS_BETWEEN_REDRAWS)
    except KeyboardInterrupt:
        pass
    if run is not None:
        show_once(run, console)


def show_once(run: Run, console: Console | None = None) -> None:
    """Print where `run` stands now."""
    console, events = console or Console(), run.events()
    console.print(screen(overview(run, events), events, console.width, HEIGHT_ELSEWHERE))


def screen(now: Overview, events: Sequence[Event], width: int, height: int) -> RenderableType:
    """A whole screen of `width` x `height` characters: status, progress, losses, numbers, the last event."""
    share = now.step / max(1, now.total_steps)
    done = round(min(1.0, share) * width)
    title = Text.assemble(
        (now.run, "bold"), "  ", (STATUS[now.status], "bold cyan"), f"  {100 * share:.0f} %"
    )
    title.truncate(width - 22, overflow="ellipsis")
    legend = Text.assemble(("━ treino", f"color({TRAIN})"), "  ", ("● validação", f"color({VALIDATION})"))
    head = Table.grid(expand=True)
    head.add_column(ratio=1, no_wrap=True)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(title, legend)
    bar = Text.assemble(("━" * done, "cyan"), ("━" * (width - done), "dim"))
    numbers = [
        Text.assemble((f"{name}: ", "dim"), (value, "bold"), no_wrap=True)
        for name, value in now.labelled().items()
    ]
    across = max(1, width // COLUMN)
    table = Columns(numbers, (0, 2, 0, 0), width=width // across - 2, column_first=True)
    said = sentences(events)
    note = Text(said[-1].splitlines()[-1] if said else "", style="yellow", no_wrap=True, overflow="ellipsis")
    rows = max(LOWEST_PLOT, height - ceil(len(numbers) / across) - 4)
    return Group(head, bar, _plot(now, events, width, rows), table, note)


def _plot(now: Overview, events: Sequence[Event], width: int, height: int) -> Text:
    """Smoothed training loss and validation loss over the updates; until there is one, what is being done."""
    steps, evaluations = of(events, Stepped), of(events, Evaluated)
    if not (steps or evaluations):
        preparing = "a preparar o modelo e os dados…" if now.status == "running" else ""
        return Text(preparing + "\n" * (height - 1), style="dim")
    losses = smooth([step.loss for step in steps])
    highest = 1.05 * max([*losses, *(event.loss for event in evaluations), 1e-3])
    end = max(now.total_steps, 1)
    figure = plotext.figure
    figure.clear()
    figure.theme("simple")
    plotext.terminal.limit(False, False)  # the size asked for holds, also where no terminal can be asked
    figure.plot_size(width, height)
    for x, y, symbol, color in (
        ([step.step for step in steps], losses, "braille", TRAIN),
        ([event.step for event in evaluations], [event.loss for event in evaluations], "●", VALIDATION),
    ):
        if len(x):
            marker = plotext.marker(symbol, plotext.pixel(color))
            figure.draw(figure.signal(list(x), list(map(float, y)), marker=marker).lines(symbol == "braille"))
    for axis, top, digits in (("x", end, 0), ("y", highest, 2)):
        ticks = [top * i / 4 for i in range(5)]
        ruler = figure.ruler(axis)
        ruler.lim(0, top)
        ruler.ticks(ticks, [decimal(tick, digits) for tick in ticks])
    return Text.from_ansi(figure.build().string(), no_wrap=True)


def _wanted(name: str | None, current: Run | None) -> Run | None:
    """The run to show: `name` once it exists; otherwise `current`, until another is under way."""
    if name and not current:
        return Run(RUNS / name) if (RUNS / name / "config.json").exists() else None
    if current and (name or current.alive):
        return current
    return next((run for run in all_runs() if run.alive), current)


def newest() -> Run:
    """The run under way, or the newest; raises `UserError` when there is none."""
    known = all_runs()
    if not known:
        raise UserError("ainda não há nenhum treino; «farense-qlora train» começa um")
    return next((run for run in known if run.alive), known[0])
