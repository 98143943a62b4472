"""Watch a run, or trials, in the notebook: one picture redrawn in place, controls that act at once, the last
state left.

The output that stays is a PNG and plain HTML tables, readable where styles and widgets are stripped.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

import ipywidgets as widgets
import mlx.core as mx
from IPython.display import HTML, Image, display

from ..answers.normalise import normalise
from ..answers.trials import Trials
from ..errors import UserError
from ..model.cpu.blas import cores
from ..model.machine import memory_limit, on_cpu
from ..table import Table
from ..templates import render
from ..text import decimal, duration, marked, plain, scientific
from ..training.cost import estimate, memory_warning
from ..training.event_log import EventReader
from ..training.events import ENDINGS, STOPPING, Event, Finished, Sampled, last, of, sentences
from ..training.numbers import numbers
from ..training.overview import STATUS
from ..training.requests import PAUSE, STOP, is_requested
from ..training.run import Run, all_runs, status
from .figures import Drawing, compare_curves, training_curves
from .kernel import answer_widgets, tethered

SECONDS_BETWEEN_REDRAWS = 0.7
SECONDS_BETWEEN_TRIALS = 5.0  # a picture takes a tenth of one from whoever trains
SHARE = 0.015  # of the machine's cores, for drawing; to listen and to read takes a third as much again
SENTENCES = 6
WIDTH = 924
FITTED = {"width": "auto"}  # as wide as what a button says


_newest: dict[Path, "Watching"] = {}


def watch(run: Run | None = None) -> "Watching":
    """Show `run`, or the newest, as it goes, while the kernel stays free for other cells.

    Reads only the run folder, so it can be called again at any time, also after the kernel was restarted;
    what was called before for the same run is then no longer drawn. Await what it returns to wait for the
    end. Raises `UserError` when there is no run.

    >>> watching = fq.watch(run)  # doctest: +SKIP
    >>> await watching  # doctest: +SKIP
    """
    if run is None and not (runs := all_runs()):
        raise UserError("ainda não há nenhum treino; «fq.start(config)» começa um")
    gc.collect()
    mx.clear_cache()  # what is kept of deleted models: gigabytes that a worker on the same machine needs
    answer_widgets()
    return Watching(run or runs[0])


class Watching:
    """Picture, numbers and controls of `run` in the cell that made it, kept up to date until the run ends.
    Awaiting it waits for that end, and raises `UserError` when the run fails; to interrupt the cell that
    waits stops the run and saves it."""

    def __init__(self, run: Run):
        self._run, self._controls, self._reader = run, Controls(run), EventReader(run.folder)
        if too_much := _foretold(run):
            display(HTML(warning(too_much)))
        self._buttons = display(self._controls.box, display_id=True)
        self._figures = display(HTML("<p>A preparar o modelo e os dados…</p>"), display_id=True)
        self._picture, self._answers = display(HTML(""), display_id=True), display(HTML(""), display_id=True)
        _newest[run.folder] = self
        self._task = asyncio.create_task(self._follow())

    def __await__(self) -> Generator[object, None, None]:
        return self._end().__await__()

    async def _end(self) -> None:
        await self._task
        while self._run.alive:  # it is shown in another place by now
            await _newest[self._run.folder]._task
        self._leave()  # once more: nbconvert takes only what the cell that runs has sent
        self._run.wait()  # raises when it failed

    async def _follow(self) -> None:
        began, spent, stale = time.perf_counter(), 0.0, False
        while self._run.alive and _newest[self._run.folder] is self:
            try:
                await asyncio.sleep(SECONDS_BETWEEN_REDRAWS)
                self._controls.refresh()
                news = bool(self._reader.poll())
                stale |= news
                affordable = time.perf_counter() - began >= spent / (SHARE * cores())
                if news or (stale and affordable):
                    start = time.thread_time()
                    self._draw(alive=True, whole=affordable)
                    stale = not affordable
                    spent += time.thread_time() - start
            except (KeyboardInterrupt, asyncio.CancelledError):  # ipykernel cancels a cell that awaits
                self._controls.stop()
        if _newest[self._run.folder] is self:
            self._leave()

    def _draw(self, alive: bool, whole: bool) -> None:
        """The texts cost a few milliseconds, the picture a hundred: it is drawn when that is affordable."""
        events = self._reader.events
        self._figures.update(HTML(state(events, alive, self._controls.more.value)))
        if whole:
            answers = samples(events)
            self._answers.update(HTML("") if answers is None else answers)
            self._picture.update(picture(training_curves(events)))

    def _leave(self) -> None:
        """The last state, without controls."""
        self._buttons.update(HTML(""))
        self._reader.poll()
        if self._reader.events:
            self._draw(alive=False, whole=True)


class TrialView:
    """Curves and table of `trials` in the cell that made it, until they end. Awaiting it waits for that; to
    interrupt the cell that waits stops them.

    >>> await fq.TrialView(fq.trials())  # doctest: +SKIP
    """

    def __init__(self, trials: Trials):
        self._trials = trials
        answer_widgets()
        message = widgets.HTML()
        stop = action_button(message, "Parar", "stop", "Guarda o que está a treinar e termina", self._stop)
        self._buttons = display(tethered(widgets.HBox([stop, message])), display_id=True)
        self._picture, self._table = (display(HTML(""), display_id=True) for _ in range(2))
        self._task = asyncio.create_task(self._follow())

    def __await__(self) -> Generator[object, None, None]:
        return self._end().__await__()

    async def _end(self) -> None:
        await self._task
        self._draw()  # once more: nbconvert takes only what the cell that runs has sent

    def _stop(self) -> str:
        self._trials.stop()
        return "a parar; fq.trials() continua-os de onde ficarem"

    async def _follow(self) -> None:
        while self._trials.alive:
            try:
                await asyncio.sleep(SECONDS_BETWEEN_TRIALS)
                self._draw()
            except (KeyboardInterrupt, asyncio.CancelledError):  # ipykernel cancels a cell that awaits
                self._stop()
        self._buttons.update(HTML(""))
        self._draw()

    def _draw(self) -> None:
        self._table.update(self._trials)
        if runs := {self._trials.settings(run): run.events() for run in self._trials.runs}:
            self._picture.update(picture(compare_curves(runs)))


class Controls:
    """Buttons and a learning rate for `run`. What they do is write to its folder, on whatever thread."""

    def __init__(self, run: Run):
        self._run = run
        self._message, self._rate_asked = widgets.HTML(), False
        self.more = widgets.ToggleButton(
            description="Mais números", icon="list", tooltip="Mostra os outros números", layout=FITTED
        )
        self._stop, self._pause, save, apply = (
            action_button(self._message, *about)
            for about in (
                ("Parar", "stop", "Acaba a atualização em curso, guarda, avalia e termina", self.stop),
                ("Pausar", "pause", "Acaba a atualização em curso, guarda e espera", self._pause_or_resume),
                ("Guardar agora", "save", "Guarda no fim da atualização em curso", self._save),
                ("Aplicar", "check", "Treina com esta taxa máxima a partir da próxima", self._ask_rate),
            )
        )
        self._rate = widgets.Text(
            value=plain(run.config.learning_rate),
            description="Taxa de aprendizagem",
            style={"description_width": "auto"},
            layout={"width": "240px"},
        )
        row = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        shown = [self._stop, self._pause, save, self.more, self._rate, apply, self._message]
        self.box = tethered(widgets.Box(shown, layout=row), "fq-live")

    def stop(self) -> str:
        """Ask the run to stop, as the button does, or asked again to end at once; returns what to say beside
        the button."""
        at_once = is_requested(self._run.folder, STOP)
        self._run.stop()
        self._stop.description, self._stop.disabled = ("A parar…", True) if at_once else ("Já", False)
        return "" if at_once else f"{STOPPING}; «Já» não espera pela avaliação"

    def refresh(self) -> None:
        """Show whether the run is asked to pause, whoever asked, and pass on the rate asked for."""
        paused = is_requested(self._run.folder, PAUSE)
        self._pause.description, self._pause.icon = ("Retomar", "play") if paused else ("Pausar", "pause")
        if self._rate_asked:
            self._rate_asked = False
            say(self._message, self._set_rate)

    def _pause_or_resume(self) -> str:
        if is_requested(self._run.folder, PAUSE):
            self._run.resume()
        else:
            self._run.pause()
        self.refresh()
        return ""

    def _save(self) -> str:
        self._run.save_now()
        return "guarda no fim desta atualização"

    def _ask_rate(self) -> str:
        # Read at the next turn of `watch`: ipykernel 7.4 may hand over the click before what was typed.
        self._rate_asked = True
        return ""

    def _set_rate(self) -> str:
        try:
            rate = float(self._rate.value.strip().replace(",", "."))
        except ValueError:
            raise UserError(f"«{self._rate.value}» não é um número (por exemplo 0,0002 ou 2e-4)") from None
        self._run.set_learning_rate(rate)
        return f"taxa máxima {scientific(rate)} a partir da próxima atualização"


def state(events: Sequence[Event], alive: bool = False, whole: bool = False) -> str:
    """How far the run is, the numbers that matter and what happened in it, as HTML that needs no style sheet;
    its other numbers too when `whole`, and folded away once the run is no longer `alive`."""
    now = numbers(events)
    labelled = now.labelled()
    large = {name: labelled.pop(name) for name in ("perda de treino", "perda de validação")}
    if asked := last(events, Sampled):
        count = sum(map(right, asked.answers, asked.expected))
        large["amostras certas"] = f"{count} em {len(asked.answers)}"
    share = now.step / max(1, now.total_steps)
    title = f"{STATUS[status(alive, events)].capitalize()}: {100 * share:.0f} %"
    if end := last(events, Finished):
        title = f"Treino {ENDINGS[end.reason]} ({duration(now.seconds)})."
        if end.best_loss is not None:
            title += f" Melhor perda de validação: {decimal(end.best_loss)} (passo {end.best_step})."
    left = "" if now.seconds_left is None or not alive else f", faltam {duration(now.seconds_left)}"
    return render(
        "ui/state.html",
        title=title,
        left=left,
        share=share,
        large=large,
        numbers=labelled,
        alive=alive,
        whole=whole,
        said=sentences(events)[-SENTENCES:],
    )


def samples(events: Sequence[Event]) -> Table | None:
    """The probe questions: what was answered at first and now. None when nothing was asked yet."""
    asked = of(events, Sampled)
    if not asked:
        return None
    columns = {"Pergunta": asked[-1].questions, "Resposta certa": asked[-1].expected}
    for event in (asked[0], asked[-1]):  # the same one after the first evaluation
        are_right = map(right, event.answers, event.expected)
        columns[f"No passo {event.step}"] = tuple(map(marked, event.answers, are_right))
    return Table(columns, caption="Perguntas de amostra, feitas em cada avaliação")


def right(answer: str, expected: str) -> bool:
    """Whether `answer` says what is `expected`."""
    return normalise(answer) == normalise(expected)


def picture(drawing: Drawing) -> Image:
    """`drawing` as wide as the rest of what is shown live."""
    return Image(drawing._repr_png_(), format="png", width=WIDTH, alt=drawing.alt)


def action_button(
    message: widgets.HTML, description: str, icon: str, tooltip: str, act: Callable[[], str | None]
) -> widgets.Button:
    """A button that does `act`, as wide as what it says; in `message` stands what comes of it."""
    button = widgets.Button(description=description, icon=icon, tooltip=tooltip, layout=FITTED)
    button.on_click(lambda _: say(message, act))
    return button


def say(message: widgets.HTML, act: Callable[[], str | None]) -> None:
    """Do `act`, and show in `message` what it says, if anything, or what is wrong."""
    try:
        if (said := act()) is not None:
            message.value = escape(said)
    except UserError as error:
        message.value = warning(error)


def warning(text: object) -> str:
    """`text` as HTML that catches the eye; the sign alone is coloured, since no colour can be read on light
    and dark alike."""
    return f'<span style="line-height:1.35"><b style="color:#D55E00">⚠</b> {escape(str(text))}</span>'


def _foretold(run: Run) -> str | None:
    """What to say of a run that is foretold not to fit; one that has begun speaks for itself."""
    with suppress(UserError):  # on bad data, of which the worker tells
        return None if run.events() else memory_warning(estimate(run.config, on_cpu()), memory_limit() / 1e9)
    return None
