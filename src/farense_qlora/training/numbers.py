"""The numbers of a run, worked out of its events in one place: whoever shows a run shows these."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..table import Table
from ..text import decimal, duration, scientific, size
from .events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Paused,
    Resumed,
    RolledBack,
    Saved,
    Skipped,
    Spiked,
    Started,
    Stepped,
    of,
)

RECENT = 30  # updates over which speed and time left are taken
VERDICTS = ((0.05, "excelente"), (0.15, "bom"), (0.30, "moderado"))
WORST = "crítico"


def or_dash(form: Callable[[float], str]) -> Callable[[float | None], str]:
    """`form`, with a dash for what is not known (None, or NaN in a table)."""
    return lambda value: "—" if value is None or value != value else form(value)


def whole(value: float) -> str:
    """A number without decimals."""
    return decimal(value, 0)


def two_decimals(value: float) -> str:
    """A number with two decimals."""
    return decimal(value, 2)


@dataclass(kw_only=True)
class Numbers:
    """What the events of a run come to so far.

    Losses are in nats a supervised token, times in seconds, memory in GB; None is what is not known yet.
    `gap` is validation less training loss; `seconds_left` is None at the end and while nobody trains;
    `checkpoint` is the step of the last one.
    """

    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    val_loss: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    gap: float | None = None
    verdict: str | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    peak_memory_gb: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    checkpoint: int | None = None
    skipped: int = 0
    rollbacks: int = 0
    spikes: int = 0

    def labelled(self) -> dict[str, str]:
        """Every number as people read it, by its name in Portuguese."""
        trouble = {"saltadas": self.skipped, "recuos": self.rollbacks, "picos": self.spikes}
        left = {} if self.seconds_left is None else {"tempo que falta": duration(self.seconds_left)}
        loss = or_dash(decimal)
        best, gap = loss(self.best_loss), loss(self.gap)
        return {
            "passo": f"{self.step} / {self.total_steps}",
            "época": two_decimals(self.epoch),
            "perda de treino": loss(self.loss),
            "perda de validação": loss(self.val_loss),
            "melhor validação": best if self.best_loss is None else f"{best} (passo {self.best_step})",
            "distância": gap if self.gap is None else f"{gap} ({self.verdict})",
            "taxa de aprendizagem": or_dash(scientific)(self.learning_rate),
            "norma do gradiente": or_dash(two_decimals)(self.grad_norm),
            "tokens/s": or_dash(whole)(self.tokens_per_s),
            "memória máxima": or_dash(size)(self.peak_memory_gb),
            "tokens vistos": whole(self.tokens),
            "tempo": duration(self.seconds),
            **left,
            "último ponto de controlo": "—" if self.checkpoint is None else f"passo {self.checkpoint}",
            **{name: str(count) for name, count in trouble.items() if count},
        }


def numbers(events: Sequence[Event]) -> Numbers:
    """What `events`, those of one run that count, come to; taken in the order of time."""
    now, between = Numbers(), generalization_gap(events)
    now.gap, now.verdict = between.gap, between.verdict
    recent: deque[Stepped] = deque(maxlen=RECENT)
    at_work, evaluating = False, 0.0
    for event in events:
        match event:
            case Started():
                now.total_steps, at_work = event.total_steps, True
            case Resumed():
                at_work = True
            case Paused() | Finished() | Failed():
                at_work = False
            case Stepped():
                recent.append(event)
                now.step, now.epoch, now.loss = event.step, event.epoch, event.loss
                now.learning_rate, now.grad_norm = event.learning_rate, event.grad_norm
                now.peak_memory_gb = event.peak_memory_gb
                now.tokens += event.tokens
                now.seconds += event.seconds
            case Evaluated():
                now.val_loss = event.loss
                if event.best:
                    now.best_loss, now.best_step = event.loss, event.step
                now.seconds += event.seconds
                evaluating += event.seconds if event.step else 0.0
            case Saved():
                now.checkpoint = event.step
            case Skipped():
                now.step = event.step
                now.skipped += 1
            case RolledBack():
                now.step = event.step
                now.rollbacks += 1
            case Spiked():
                now.spikes += 1
    if recent:
        seconds = sum(step.seconds for step in recent)
        now.tokens_per_s = sum(step.tokens for step in recent) / seconds if seconds else None
        if at_work:
            each = seconds / len(recent) + evaluating / max(1, now.step)
            now.seconds_left = (now.total_steps - now.step) * each
    return now


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How far validation lies from training, in nats a supervised token: `gap` is validation less training
    loss, `verdict` says in Portuguese what that means. All None before the first evaluation."""

    train_loss: float | None = None
    val_loss: float | None = None
    gap: float | None = None
    verdict: str | None = None

    def table(self) -> Table:
        """The same for people."""
        if self.gap is None or self.train_loss is None or self.val_loss is None:
            return Table.of_facts("Distância", [("Veredicto", "o treino acabou antes da primeira avaliação")])
        facts = [
            ("Perda de treino (último quarto de época)", decimal(self.train_loss)),
            ("Perda de validação", decimal(self.val_loss)),
            ("Distância", decimal(self.gap)),
            ("Veredicto", str(self.verdict)),
        ]
        return Table.of_facts("Distância entre treino e validação", facts)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def generalization_gap(events: Sequence[Event]) -> Gap:
    """The last validation loss less the mean training loss of the quarter epoch before it, averaged by
    supervised token."""
    steps = of(events, Stepped)
    evaluations = [event for event in of(events, Evaluated) if event.step > 0]
    if not steps or not evaluations:
        return Gap()
    last = evaluations[-1]
    recent = [step for step in steps if last.epoch - 0.25 <= step.epoch <= last.epoch] or steps[-1:]
    tokens = sum(step.supervised_tokens for step in recent)
    train_loss = sum(step.loss * step.supervised_tokens for step in recent) / tokens
    gap = last.loss - train_loss
    verdict = next((word for bound, word in VERDICTS if gap < bound), WORST)
    return Gap(train_loss=train_loss, val_loss=last.loss, gap=gap, verdict=verdict)


def history(events: Sequence[Event]) -> Table:
    """One row an update, with the validation loss where one was measured (also before the first update).

    `seconds` and `tokens_per_s` are those of the update alone; units are as in `Numbers`.
    """
    rows: dict[int, dict[str, float]] = {}
    for event in events:
        if isinstance(event, Stepped | Evaluated):
            row = rows.setdefault(event.step, {"step": event.step, "epoch": event.epoch})
        if isinstance(event, Evaluated):
            row["val_loss"] = event.loss
        elif isinstance(event, Stepped):
            row |= vars(event) | {"tokens_per_s": event.tokens / event.seconds}
    formats: dict[str, Callable[[float], str]] = {
        "epoch": two_decimals,
        "loss": decimal,
        "val_loss": decimal,
        "learning_rate": scientific,
        "grad_norm": two_decimals,
        "tokens_per_s": whole,
        "peak_memory_gb": size,
        "seconds": two_decimals,
    }
    return Table(
        list(rows.values()),
        columns=["step", *formats],
        formats={name: or_dash(form) for name, form in formats.items()},
    )
