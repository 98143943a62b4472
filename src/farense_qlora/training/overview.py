"""The numbers of a run, worked out in one place: notebook, monitor, report and table of runs show these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..config import PROFILES, Config
from ..errors import UserError
from ..text import decimal, plain, scientific, size, text_table
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
    best_of,
)
from .gap import gap
from .run import Run, runs, status
from .words import duration

STATUS = {
    "running": "a decorrer",
    "paused": "em pausa",
    "completed": "terminado",
    "early_stopping": "terminado cedo",
    "stopped": "parado",
    "failed": "falhou",
    "interrupted": "interrompido",
    "new": "por começar",
}
RECENT = 30  # updates over which speed and time left are taken


@dataclass(frozen=True)
class Numbers:
    """What the events of a run come to. Losses in nats a supervised token, times in seconds, memory in GB;
    None is what is not known yet. `gap` is validation less training loss; `seconds_left` is None at the end
    and while nobody trains; `checkpoint` is the step of the last one."""

    step: int
    total_steps: int
    epoch: float
    loss: float | None
    val_loss: float | None
    best_loss: float | None
    best_step: int
    gap: float | None
    verdict: str | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_s: float | None
    peak_memory_gb: float | None
    tokens: int
    seconds: float
    seconds_left: float | None
    checkpoint: int | None
    skipped: int
    rollbacks: int
    spikes: int

    def labelled(self) -> dict[str, str]:
        """Every number as people read it, by its name in Portuguese."""
        trouble = {"saltadas": self.skipped, "recuos": self.rollbacks, "picos": self.spikes}
        left = {} if self.seconds_left is None else {"tempo que falta": duration(self.seconds_left)}
        best = _or_dash(self.best_loss, decimal)
        return {
            "passo": f"{self.step} / {self.total_steps}",
            "época": decimal(self.epoch, 2),
            "perda de treino": _or_dash(self.loss, decimal),
            "perda de validação": _or_dash(self.val_loss, decimal),
            "melhor validação": best if self.best_loss is None else f"{best} (passo {self.best_step})",
            "distância": "—" if self.gap is None else f"{decimal(self.gap)} ({self.verdict})",
            "taxa de aprendizagem": _or_dash(self.learning_rate, scientific),
            "norma do gradiente": _or_dash(self.grad_norm, lambda norm: decimal(norm, 2)),
            "tokens/s": _or_dash(self.tokens_per_s, lambda rate: decimal(rate, 0)),
            "memória máxima": _or_dash(self.peak_memory_gb, size),
            "tokens vistos": decimal(self.tokens, 0),
            "tempo": duration(self.seconds),
            **left,
            "último ponto de controlo": "—" if self.checkpoint is None else f"passo {self.checkpoint}",
            **{name: str(count) for name, count in trouble.items() if count},
        }


@dataclass(frozen=True)
class Overview(Numbers):
    """A run at a glance: its `status` as `Run.status` says, the settings in which it `differs` from its
    profile, and its bytes on the disk."""

    run: str
    status: str
    profile: str
    differs: dict[str, object]
    bytes: int


def numbers(events: Sequence[Event]) -> Numbers:
    """What `events` (those of one run, settled) come to so far."""
    started = next((event for event in reversed(events) if isinstance(event, Started)), None)
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    total = started.total_steps if started else 0
    done = max((e.step for e in steps[-1:] + [e for e in events if isinstance(e, Skipped)][-1:]), default=0)
    last, recent = (steps[-1] if steps else None), steps[-RECENT:]
    seconds = sum(step.seconds for step in recent)
    evaluating = sum(event.seconds for event in evaluations if event.step) / max(1, done)
    turns = [event for event in events if isinstance(event, Started | Paused | Resumed | Finished | Failed)]
    at_work = bool(turns) and isinstance(turns[-1], Started | Resumed)
    best = best_of(evaluations)
    between = gap(events)

    def count(kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in events)

    return Numbers(
        step=done,
        total_steps=total,
        epoch=last.epoch if last else 0.0,
        loss=last.loss if last else None,
        val_loss=evaluations[-1].loss if evaluations else None,
        best_loss=best.loss if best else None,
        best_step=best.step if best else 0,
        gap=between.gap if between else None,
        verdict=between.verdict if between else None,
        learning_rate=last.learning_rate if last else None,
        grad_norm=last.grad_norm if last else None,
        tokens_per_s=sum(step.tokens for step in recent) / seconds if seconds else None,
        peak_memory_gb=last.peak_memory_gb if last else None,
        tokens=sum(step.tokens for step in steps),
        seconds=sum(e.seconds for e in steps) + sum(e.seconds for e in evaluations),
        seconds_left=(total - done) * (seconds / len(recent) + evaluating) if at_work and recent else None,
        checkpoint=next((event.step for event in reversed(events) if isinstance(event, Saved)), None),
        skipped=count(Skipped),
        rollbacks=count(RolledBack),
        spikes=count(Spiked),
    )


def overview(run: Run, events: Sequence[Event] | None = None) -> Overview:
    """Where `run` stands; `events` are its own, if they were read already."""
    events = run.events() if events is None else events
    files = [path for path in run.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    try:
        config = run.config
        profile, differs = config.profile, differences(config)
    except UserError:  # of an older version, or damaged: its events can still be read
        profile, differs = "?", {}
    now, state = numbers(events), status(run.alive, events)
    return Overview(
        **vars(now) | {"seconds_left": now.seconds_left if state == "running" else None},
        run=run.name,
        status=state,
        profile=profile,
        differs=differs,
        bytes=sum(path.stat().st_size for path in files),
    )


def overviews() -> list[Overview]:
    """Every run, oldest first."""
    return [overview(run) for run in runs()]


def differences(config: Config) -> dict[str, object]:
    """The settings of `config` that are not those of its profile."""
    usual = Config.of(config.profile) if config.profile in PROFILES else Config()
    return {name: value for name, value in config if name != "profile" and value != getattr(usual, name)}


COLUMNS = (
    "treino",
    "estado",
    "definições",
    "passo",
    "melhor validação",
    "distância",
    "tempo",
    "tokens",
    "disco",
)


def columns(row: Overview) -> tuple[str, ...]:
    """`row` in the `COLUMNS` of the table of runs."""
    shown = row.labelled()
    settings = [row.profile, *(f"{name}={_setting(value)}" for name, value in row.differs.items())]
    return (
        row.run,
        STATUS[row.status],
        ", ".join(settings),
        shown["passo"],
        shown["melhor validação"],
        shown["distância"],
        shown["tempo"],
        shown["tokens vistos"],
        size(row.bytes / 1e9),
    )


def overview_text(rows: Sequence[Overview]) -> str:
    """The table of runs for a terminal."""
    if not rows:
        return "ainda não há treinos: comece com «farense-qlora train»"
    lines = [list(columns(row)) for row in rows]
    for line in lines:  # full width belongs to the notebook
        line[2] = line[2] if len(line[2]) <= 40 else f"{line[2][:39]}…"
    return text_table(COLUMNS, lines)


def _setting(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return plain(value) if isinstance(value, float) else str(value)


def _or_dash(value: float | None, text: Callable[[float], str]) -> str:
    return "—" if value is None else text(value)
