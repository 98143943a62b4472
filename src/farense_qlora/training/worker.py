"""The process that trains: it owns a run folder through a lock that dies with it, and writes its events."""

import signal
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from ..config import Config
from ..errors import UserError
from ..model import cpu
from .control import Wishes, wishes
from .events import Event, Failed
from .journal import Journal


def main(folder: Path, accept_changes: bool) -> int:
    """Train the run in `folder` to its end; whatever goes wrong ends as a `Failed` event, never unsaid.

    Whoever starts this process has locked the folder, and hands it the lock.
    """
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: interrupted.append(received))  # acted on between updates

    def ask() -> Wishes:
        return replace(wishes(folder), stop=True) if interrupted else wishes(folder)

    with Journal(folder, gives_up=lambda: ask().stop) as journal:
        try:
            cpu.enable()
            from ..model.base import load_base
            from .loop import train

            config = Config.read(folder / "config.json")
            base = load_base(config)
            for event in train(config, base, folder, ask, accept_changes):
                journal.write(event)
        except UserError as error:
            journal.write(_failed(str(error)))
            return 2
        except Exception as error:
            traceback.print_exc()
            journal.write(_failed(f"o treino falhou ({error}); veja {folder / 'worker.log'}"))
            return 1
    return 0


def _failed(message: str) -> Event:
    return Failed(0, time.time(), message)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--accept-changes" in sys.argv))
