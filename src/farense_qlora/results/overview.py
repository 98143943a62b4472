"""All runs at a glance: where each stands, how good it is, and what it takes."""

from dataclasses import dataclass

from ..training.events import Evaluated, Started, Stepped
from ..training.run import Run, runs
from ..training.words import duration
from .text import decimal, text_table

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


@dataclass(frozen=True)
class Overview:
    """One run: `status` as `Run.status` says, steps done and due, best validation loss in nats, seconds of
    training, and bytes on the disk."""

    run: str
    status: str
    step: int
    total_steps: int
    best_loss: float | None
    seconds: float
    bytes: int


def overview() -> list[Overview]:
    """Every run that can be read, oldest first."""
    return [_of(run) for run in runs()]


def overview_text(rows: list[Overview]) -> str:
    """The overview as a table for a terminal."""
    if not rows:
        return "ainda não há treinos: comece com «farense-qlora train»"
    header = ["treino", "estado", "passo", "melhor validação", "tempo", "disco"]
    cells = [
        [
            row.run,
            STATUS[row.status],
            f"{row.step}/{row.total_steps}",
            "—" if row.best_loss is None else decimal(row.best_loss),
            duration(row.seconds),
            f"{row.bytes / 1e6:.0f} MB",
        ]
        for row in rows
    ]
    return text_table(header, cells)


def _of(run: Run) -> Overview:
    events = run.events()
    steps = [event for event in events if isinstance(event, Stepped)]
    started = [event for event in events if isinstance(event, Started)]
    losses = [event.loss for event in events if isinstance(event, Evaluated)]
    files = [path for path in run.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Overview(
        run.name,
        run.status,
        steps[-1].step if steps else 0,
        started[-1].total_steps if started else 0,
        min(losses, default=None),
        sum(step.seconds for step in steps),
        sum(path.stat().st_size for path in files),
    )
