"""In the terminal: a run's progress bar, drawn from its events; its end, asked for and said; a count."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..bar import Bar
from ..text import counted, decimal, duration
from ..training.events import ENDINGS, STOPPING, Evaluated, Finished, Started, Stepped, of, sentence
from ..training.numbers import RECENT, numbers
from ..training.run import Run

COUNTED = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}"
LAYOUT = (
    "{percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt} atualizações, {elapsed}, faltam {remaining}{postfix}"
)


def outcome(run: Run) -> tuple[dict[str, Any], str]:
    """How the finished `run` ended, for programs and in a sentence: its best adapter and the loss of that, in
    nats a supervised token, and the seconds of all its updates and evaluations, as in the table of runs."""
    events = run.events()
    end, seconds = of(events, Finished)[-1], numbers(events).seconds
    result = {
        "run": run.name,
        "folder": str(run.folder),
        "adapter": str(run.best_adapter),
        "reason": end.reason,
        "steps": end.step,
        "best_step": end.best_step,
        "best_loss": end.best_loss,
        "seconds": seconds,
    }
    loss = ""
    if end.best_loss is not None:
        loss = f"; melhor perda de validação {decimal(end.best_loss, 4)} (passo {end.best_step})"
    text = (
        f"treino «{run.name}» {ENDINGS[end.reason]} ({counted(end.step, 'atualização')} em "
        f"{duration(seconds)}){loss}; adaptador em {run.best_adapter}"
    )
    return result, text


def follow(run: Run) -> None:
    """Draw `run` on stderr until it ends: loss, validation loss, tokens a second, time left."""
    recent: deque[Stepped] = deque(maxlen=RECENT)
    loss = validation = speed = ""
    # Time left from the mean since the start: recent updates alone would double it at every evaluation.
    with Bar(desc="a preparar", bar_format="{desc}… {elapsed}", smoothing=0) as bar:
        for event in run.follow():
            if isinstance(event, Started):
                bar.bar_format, bar.initial = LAYOUT, event.step
                recent.clear()  # what was done again, after a crash, counts once
                loss = validation = speed = ""
                bar.reset(event.total_steps)
            elif isinstance(event, Evaluated):
                validation = f"validação {decimal(event.loss, 3)}"
            elif isinstance(event, Stepped):
                recent.append(event)
                rate = sum(e.tokens for e in recent) / sum(e.seconds for e in recent)
                loss, speed = f"perda {decimal(event.loss, 3)}", f"{decimal(rate, 0)} tokens/s"
            if not isinstance(event, Finished) and (said := sentence(event)):
                bar.write(said, file=sys.stderr)
            bar.set_postfix_str(", ".join(filter(None, (loss, validation, speed))), refresh=False)
            bar.update(event.step - bar.n)
            if isinstance(event, Evaluated | Finished):
                bar.refresh()


def stop_and_wait(run: Run) -> None:
    """Ask `run` to stop and wait for that; Ctrl-C meanwhile asks again. Raises `UserError` when it fails."""
    print(f"a parar: {STOPPING}; outro Ctrl-C não espera pela avaliação", file=sys.stderr)
    run.stop()
    try:
        run.wait()
    except KeyboardInterrupt:
        run.stop()
        run.wait()


def counting(what: str, total: int | None) -> Any:
    """A progress bar on stderr; its `update` is told how much more is done."""
    layout = COUNTED if total else "{desc}: {n_fmt} {elapsed}"
    return Bar(total=total, desc=what, bar_format=layout)


@contextmanager
def telling() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr; gives what is told what is being done, how much of it is, and of how much."""
    with Bar(bar_format=COUNTED) as bar:

        def tell(what: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description_str(what, refresh=False)
            bar.update(done - bar.n)

        yield tell
