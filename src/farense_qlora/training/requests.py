"""What is asked of a run while it trains: a request is a file in its folder, so any process can make one."""

from dataclasses import dataclass
from pathlib import Path

from ..files import atomic_write

STOP, STOP_NOW, PAUSE, SAVE, LEARNING_RATE = "stop", "stop_now", "pause", "save", "learning_rate"


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What training should do after this update; `learning_rate` is the new peak, if another is asked for."""

    pause: bool = False
    save: bool = False
    learning_rate: float | None = None


def request(folder: Path, name: str, text: str = "") -> None:
    """Ask the run in `folder` for `name`; raises `UserError` when that cannot be written."""
    with atomic_write(folder / name) as path:
        path.write_text(text, encoding="utf-8")


def is_requested(folder: Path, name: str) -> bool:
    """Whether `name` is asked of the run in `folder`; consumes nothing."""
    return (folder / name).exists()


def stops_asked(folder: Path) -> int:
    """How often a stop is asked of the run in `folder`: 0, 1, or 2 when it is not to wait for an evaluation;
    consumes nothing."""
    return is_requested(folder, STOP) + is_requested(folder, STOP_NOW)


def read_requests(folder: Path) -> Requests:
    """What is asked of the run in `folder` besides to stop, for the one that trains: consumes the requests to
    save and to change the learning rate, which are granted once.

    During a pause those two stay where they are, to be granted when training goes on.
    """
    if is_requested(folder, PAUSE):
        return Requests(pause=True)
    save, rate = _consume(folder / SAVE), _consume(folder / LEARNING_RATE)
    return Requests(save=save is not None, learning_rate=None if rate is None else float(rate))


def clear_requests(folder: Path) -> None:
    """Drop every request: a worker that starts obeys only what is asked from then on."""
    for name in (STOP, STOP_NOW, PAUSE, SAVE, LEARNING_RATE):
        (folder / name).unlink(missing_ok=True)


def _consume(path: Path) -> str | None:
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    path.unlink()
    return text
