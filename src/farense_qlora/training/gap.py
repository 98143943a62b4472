"""How far validation lies from training at the end of a run, and what that says."""

from collections.abc import Sequence
from dataclasses import dataclass

from .events import Evaluated, Event, Stepped

VERDICTS = ((0.05, "excelente"), (0.15, "bom"), (0.30, "moderado"))
WORST = "crítico"


@dataclass(frozen=True)
class Gap:
    """Losses in nats a supervised token; `gap` is validation less training, `verdict` is in Portuguese."""

    train_loss: float
    val_loss: float
    gap: float
    verdict: str


def gap(events: Sequence[Event]) -> Gap | None:
    """The last validation loss less the mean training loss of the quarter epoch before it.

    Training losses are averaged by supervised token. None when the run has not got as far as an evaluation.
    """
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated) and event.step > 0]
    if not steps or not evaluations:
        return None
    last = evaluations[-1]
    recent = [step for step in steps if last.epoch - 0.25 <= step.epoch <= last.epoch] or steps[-1:]
    tokens = sum(step.supervised_tokens for step in recent)
    train_loss = sum(step.loss * step.supervised_tokens for step in recent) / tokens
    difference = last.loss - train_loss
    verdict = next((word for bound, word in VERDICTS if difference < bound), WORST)
    return Gap(train_loss, last.loss, difference, verdict)
