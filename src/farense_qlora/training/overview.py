"""Every run at a glance: where it stands, how it differs from its profile, how good it is, what it took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..errors import UserError
from ..files import bytes_in
from ..profiles import PROFILES
from ..table import Table
from ..text import decimal, duration, plain, size
from .events import Event
from .numbers import WHOLE, Numbers, numbers
from .run import Run, all_runs, in_vain, status

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


@dataclass(kw_only=True)
class Overview(Numbers):
    """A run at a glance: its `status` as `Run.status` says, the settings in which it `differs` from its
    profile, and its bytes on the disk."""

    run: str
    status: str
    profile: str
    differs: dict[str, object]
    bytes: int


def overview(run: Run, events: Sequence[Event] | None = None) -> Overview:
    """Where `run` stands; `events` are its own, if they were read already."""
    events = run.events() if events is None else events
    try:
        config = run.config
        profile, differs = config.profile, differences(config)
    except UserError:  # of an older version, or damaged: its events can still be read
        profile, differs = "?", {}
    now, state = numbers(events), status(run.alive, events)
    if state != "running":
        now.seconds_left = None
    taken = bytes_in(run.folder)
    return Overview(**vars(now), run=run.name, status=state, profile=profile, differs=differs, bytes=taken)


def runs(rows: Sequence[Overview] | None = None, caption: str = "Todos os treinos") -> Table:
    """The runs `rows`, or every run, the newest first, as a table for people; those that failed before their
    first update stand in one line below it.

    Cells with two numbers are pairs, and sort by the first: (step, of how many), (loss, at which step),
    (gap, verdict). Times are in seconds, sizes in bytes.

    >>> "decorado" in fq.runs()["treino"].tolist()
    True
    """
    rows = [overview(run) for run in all_runs()] if rows is None else rows
    vain = [row.run for row in rows if in_vain(row.status, row.step)]
    cells = [
        (
            row.run,
            STATUS[row.status],
            ", ".join([row.profile, *(f"{name}={setting(value)}" for name, value in row.differs.items())]),
            (row.step, row.total_steps),
            None if row.best_loss is None else (row.best_loss, row.best_step),
            None if row.gap is None else (row.gap, row.verdict),
            row.seconds,
            row.tokens,
            row.bytes,
        )
        for row in rows
        if row.run not in vain
    ]
    formats: dict[str, Callable[[Any], str]] = {
        "passo": lambda at: f"{at[0]} / {at[1]}",
        "melhor validação": lambda best: f"{decimal(best[0])} (passo {best[1]})",
        "distância": lambda gap: f"{decimal(gap[0])} ({gap[1]})",
        "tempo": duration,
        "tokens": WHOLE,
        "disco": lambda taken: size(taken / 1e9),
    }
    attempts = "tentativa que não chegou" if len(vain) == 1 else "tentativas que não chegaram"
    return Table(
        cells,
        columns=["treino", "estado", "definições", *formats],
        caption=caption,
        formats=formats,
        note=f"e {len(vain)} {attempts} a treinar: {', '.join(vain)}" if vain else "",
    )


def runs_text(rows: Sequence[Overview]) -> str:
    """The same for a terminal, where long settings are cut."""
    if not rows:
        return "ainda não há treinos: comece com «farense-qlora train»"
    table = runs(rows, "")
    table["definições"] = [text if len(text) <= 40 else f"{text[:39]}…" for text in table["definições"]]
    return repr(table)


def differences(config: Config) -> dict[str, object]:
    """The settings of `config` that are not those of its profile."""
    usual = Config.of(config.profile) if config.profile in PROFILES else Config()
    return {name: value for name, value in config if name != "profile" and value != getattr(usual, name)}


def setting(value: object) -> str:
    """The value of a setting as people read it."""
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    return plain(value) if isinstance(value, float) else str(value)
