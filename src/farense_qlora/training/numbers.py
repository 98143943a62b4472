"""The numbers of a run, worked out of its events in one place: whoever shows a run shows these."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..table import Drawn, Table
from ..text import decimal, duration, scientific, size
from .events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Paused,
    Restarted,
    Resumed,
    RolledBack,
    Saved,
    Skipped,
    Spiked,
    Started,
    Stepped,
    best_of,
    last,
    of,
)

RECENT = 30  # updates over which speed and time left are taken
WHOLE, TWO_DECIMALS = partial(decimal, digits=0), partial(decimal, digits=2)
VERDICTS = ((0.05, "excelente"), (0.15, "bom"), (0.30, "moderado"))
WORST = "crítico"
# Above this share of the base's loss there is nothing yet to be praised or blamed: at 0.74 of it the
# miniature gets 7 % of the questions right.
UNLEARNT, UNLEARNT_FROM = "aprendeu pouco", 0.5


@dataclass(kw_only=True)
class Numbers:
    """What the events of a run come to so far.

    Losses are in nats a supervised token, times in seconds, memory in GB; None is what is not known yet.
    `gap` is validation less training loss; `seconds_left` is None at the end and while nobody trains;
    `general_loss` is that of texts about other things, by which one sees what is forgotten; `checkpoint` is
    the step of the last one. Of each of several `hosts`, its name, its own tokens a second and its memory.
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
    general_loss: float | None = None
    general_loss_at_first: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    peak_memory_gb: float | None = None
    tokens: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
    checkpoint: int | None = None
    hosts: tuple[tuple[str, float, float], ...] = ()
    skipped: int = 0
    rollbacks: int = 0
    spikes: int = 0

    def labelled(self) -> dict[str, str]:
        """Every number as people read it, by its name in Portuguese."""

        def known(value: float | None, form: Callable[[float], str] = decimal) -> str:
            return "—" if value is None else form(value)

        trouble = {"saltadas": self.skipped, "recuos": self.rollbacks, "picos": self.spikes}
        general = {}
        if self.general_loss is not None:
            first = known(self.general_loss_at_first)
            general = {"português em geral": f"{decimal(self.general_loss)} (no início {first})"}
        left = {} if self.seconds_left is None else {"tempo que falta": duration(self.seconds_left)}
        return {
            "passo": f"{self.step} / {self.total_steps}",
            "época": TWO_DECIMALS(self.epoch),
            "perda de treino": known(self.loss),
            "perda de validação": known(self.val_loss),
            "melhor validação": known(
                self.best_loss, lambda loss: f"{decimal(loss)} (passo {self.best_step})"
            ),
            "distância": known(self.gap, lambda gap: f"{decimal(gap)} ({self.verdict})"),
            **general,
            "taxa de aprendizagem": known(self.learning_rate, scientific),
            "norma do gradiente": known(self.grad_norm, TWO_DECIMALS),
            "tokens/s": known(self.tokens_per_s, WHOLE),
            "memória máxima": known(self.peak_memory_gb, size),
            **{name: f"{WHOLE(speed)} tokens/s, {size(memory)}" for name, speed, memory in self.hosts},
            "tokens vistos": WHOLE(self.tokens),
            "tempo": duration(self.seconds),
            **left,
            "último ponto de controlo": known(self.checkpoint, lambda step: f"passo {step}"),
            **{name: str(count) for name, count in trouble.items() if count},
        }


def numbers(events: Sequence[Event]) -> Numbers:
    """What `events`, those of one run that count, come to."""
    steps, evaluations, between = of(events, Stepped), of(events, Evaluated), generalization_gap(events)
    now = Numbers(
        gap=between.gap,
        verdict=between.verdict,
        tokens=sum(step.tokens for step in steps),
        seconds=sum(step.seconds for step in steps) + sum(one.seconds for one in evaluations),
        skipped=len(of(events, Skipped)),
        rollbacks=len(of(events, RolledBack)),
        spikes=len(of(events, Spiked)),
    )
    if began := last(events, Started):
        now.total_steps = began.total_steps
    if at := last(events, Stepped, Skipped, RolledBack):
        now.step = at.step
    if saved := last(events, Saved):
        now.checkpoint = saved.step
    if evaluations:
        now.val_loss, now.general_loss = evaluations[-1].loss, evaluations[-1].general_loss
        now.general_loss_at_first = evaluations[0].general_loss
    if best := best_of(evaluations):
        now.best_loss, now.best_step = best.loss, best.step
    if steps:
        newest, recent = steps[-1], steps[-RECENT:]
        now.epoch, now.loss, now.learning_rate = newest.epoch, newest.loss, newest.learning_rate
        now.grad_norm, now.peak_memory_gb = newest.grad_norm, newest.peak_memory_gb
        seconds = sum(step.seconds for step in recent)
        now.tokens_per_s = sum(step.tokens for step in recent) / seconds if seconds else None
        if began and len(began.hosts) == len(newest.host_speeds):
            now.hosts = tuple(zip(began.hosts, newest.host_speeds, newest.host_memory_gb, strict=True))
        if isinstance(last(events, Started, Resumed, Paused, Restarted, Finished, Failed), Started | Resumed):
            evaluating = sum(one.seconds for one in evaluations if one.step)
            each = seconds / len(recent) + evaluating / max(1, now.step)
            now.seconds_left = (now.total_steps - now.step) * each
    return now


@dataclass(frozen=True, kw_only=True, repr=False)
class Gap(Drawn):
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


def generalization_gap(events: Sequence[Event]) -> Gap:
    """The last validation loss less the mean training loss of the quarter epoch before it, averaged by
    supervised token."""
    steps = of(events, Stepped)
    evaluations = [event for event in of(events, Evaluated) if event.step > 0]
    if not steps or not evaluations:
        return Gap()
    newest = evaluations[-1]
    recent = [step for step in steps if newest.epoch - 0.25 <= step.epoch <= newest.epoch] or steps[-1:]
    base = next((event.loss for event in of(events, Evaluated) if event.step == 0), math.inf)
    if any(event.from_adapter for event in of(events, Started)):
        base = math.inf  # that was no base's
    tokens = sum(step.supervised_tokens for step in recent)
    train_loss = sum(step.loss * step.supervised_tokens for step in recent) / tokens
    gap = newest.loss - train_loss
    verdict = next((word for bound, word in VERDICTS if gap < bound), WORST)
    if newest.loss > UNLEARNT_FROM * base:
        verdict = UNLEARNT
    return Gap(train_loss=train_loss, val_loss=newest.loss, gap=gap, verdict=verdict)


def history(events: Sequence[Event]) -> Table:
    """One row an update, with the losses of the validation and of general texts where they were measured
    (also before the first update).

    `seconds` and `tokens_per_s` are those of the update alone; units are as in `Numbers`.
    """
    rows: dict[int, dict[str, float]] = {}
    for event in events:
        if isinstance(event, Stepped | Evaluated):
            row = rows.setdefault(event.step, {"step": event.step, "epoch": event.epoch})
        if isinstance(event, Evaluated):
            row["val_loss"] = event.loss
            if event.general_loss is not None:
                row["general_loss"] = event.general_loss
        elif isinstance(event, Stepped):
            row |= vars(event) | {"tokens_per_s": event.tokens / event.seconds}
    formats: dict[str, Callable[[float], str]] = {
        "epoch": TWO_DECIMALS,
        "loss": decimal,
        "val_loss": decimal,
        "general_loss": decimal,
        "learning_rate": scientific,
        "grad_norm": TWO_DECIMALS,
        "tokens_per_s": WHOLE,
        "peak_memory_gb": size,
        "seconds": TWO_DECIMALS,
    }
    return Table(list(rows.values()), columns=["step", *formats], formats=formats)
