"""In the terminal: a run's progress bar, drawn from its events, and how it ended in one sentence; a count."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

from ..text import decimal, duration
from ..training.events import ENDINGS, Evaluated, Finished, Started, Stepped, sentence
from ..training.numbers import RECENT, numbers
from ..training.run import Run

LAYOUT = (
    "{percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt} atualizações, {elapsed}, faltam {remaining}{postfix}"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `adapter` is the folder of its best adapter, losses are in nats a supervised token,
    `seconds` those of all its updates and evaluations, as in the table of runs."""

    run: str
    folder: str
    adapter: str
    reason: str
    steps: int
    best_step: int
    best_loss: float | None
    seconds: float

    def sentence(self) -> str:
        """The same in one sentence in Portuguese."""
        loss = ""
        if self.best_loss is not None:
            loss = f"; melhor perda na validação {decimal(self.best_loss, 4)} (passo {self.best_step})"
        return (
            f"treino «{self.run}» {ENDINGS[self.reason]}: {self.steps} atualizações em "
            f"{duration(self.seconds)}{loss}; adaptador em {self.adapter}"
        )


def outcome(run: Run) -> Outcome:
    """How the finished `run` ended."""
    events = run.events()
    end = next(event for event in reversed(events) if isinstance(event, Finished))
    return Outcome(
        run.name,
        str(run.folder),
        str(run.best_adapter),
        end.reason,
        end.step,
        end.best_step,
        end.best_loss,
        numbers(events).seconds,
    )


def follow(run: Run) -> None:
    """Draw `run` on stderr until it ends: loss, validation loss, tokens a second, time left."""
    recent: deque[Stepped] = deque(maxlen=RECENT)
    loss = validation = speed = ""
    # Time left from the mean since the start: recent updates alone would double it at every evaluation.
    with tqdm(desc="a preparar", bar_format="{desc}… {elapsed}", leave=False, smoothing=0) as bar:
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


@contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """A progress bar on stderr; gives what adds to it."""
    layout = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}" if total else "{desc}: {n_fmt} {elapsed}"
    with tqdm(total=total, desc=what, bar_format=layout, leave=False) as bar:
        yield bar.update
