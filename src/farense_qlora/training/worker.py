"""The process that trains: it owns a run folder through a lock that dies with it, and writes its events."""

import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from ..config import Config
from ..errors import UserError
from .events import Event, Failed
from .journal import Journal
from .requests import STOP, Requests, is_requested, read_requests


def main(folder: Path, accept_changes: bool) -> int:
    """Train the run in `folder` to its end; whatever goes wrong ends as a `Failed` event, never unsaid.

    Whoever starts this process has locked the folder, and hands it the lock.
    """
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: interrupted.append(received))  # acted on between updates

    def requests() -> Requests:
        asked = read_requests(folder)
        return replace(asked, stop=True) if interrupted else asked

    def should_stop() -> bool:
        return bool(interrupted) or is_requested(folder, STOP)

    with Journal(folder, gives_up=should_stop) as journal:
        try:
            from ..data.load import load_data
            from ..model.base import load_base
            from .loop import train

            config = Config.read(folder / "config.json")
            base = load_base(config)
            data = load_data(config, base)
            for event in train(config, base, data, folder, requests, accept_changes, should_stop):
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
    return Failed(step=0, message=message)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--accept-changes" in sys.argv))
