"""What is asked of a run while it trains: each wish is a file in its folder, so any process can ask."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..files import atomic_write

STOP, PAUSE, SAVE, LEARNING_RATE = "stop", "pause", "save", "learning_rate"


@dataclass(frozen=True)
class Wishes:
    """What the loop should do after this update."""

    stop: bool = False
    pause: bool = False
    save: bool = False
    learning_rate: float | None = None


# A wish to save or to change the learning rate is told once.
Ask = Callable[[], Wishes]


class Asked:
    """`ask` for a loop that looks for a stop oftener than it can grant the other wishes: none is lost."""

    def __init__(self, ask: Ask):
        self._ask, self._kept = ask, Wishes()

    def stop(self) -> bool:
        """Whether a stop is asked; what else is asked waits for the next call."""
        new, kept = self._ask(), self._kept
        rate = new.learning_rate or kept.learning_rate
        self._kept = replace(new, save=new.save or kept.save, learning_rate=rate)
        return new.stop

    def __call__(self) -> Wishes:
        """What is asked now, and what was kept since the last call."""
        self.stop()
        kept, self._kept = self._kept, Wishes()
        return kept


def wishes(folder: Path) -> Wishes:
    """Read what is asked in the run folder `folder`, and strike off what is asked once.

    In a pause that waits: the learning rate changes when training goes on.
    """
    if (folder / PAUSE).exists():
        return Wishes(stop=(folder / STOP).exists(), pause=True)
    rate = None
    if (folder / LEARNING_RATE).exists():
        rate = float((folder / LEARNING_RATE).read_text(encoding="utf-8"))
        (folder / LEARNING_RATE).unlink()
    if save := (folder / SAVE).exists():
        (folder / SAVE).unlink()
    return Wishes((folder / STOP).exists(), False, save, rate)


def wish(folder: Path, name: str, text: str = "") -> None:
    """Ask the run in `folder` for `name`; raises `UserError` when it cannot be written."""
    with atomic_write(folder / name) as path:
        path.write_text(text, encoding="utf-8")


def forget(folder: Path) -> None:
    """Strike off every wish: a worker that starts obeys only what is asked from then on."""
    for name in (STOP, PAUSE, SAVE, LEARNING_RATE):
        (folder / name).unlink(missing_ok=True)
