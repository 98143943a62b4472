"""The process that trains: owns a run folder through a lock that dies with it, and writes its events."""

import fcntl
import signal
import sys
import time
import traceback
from pathlib import Path

from ..config import Config
from ..errors import UserError
from .events import Event, Failed


def main(folder: Path) -> int:
    """Train the run in `folder` to its end; whatever goes wrong ends as a `Failed` event, never unsaid."""
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: interrupted.append(received))  # acted on between updates
    with open(folder / "lock", "w") as lock, open(folder / "events.jsonl", "a", encoding="utf-8") as log:

        def write(event: Event) -> None:
            log.write(event.to_json() + "\n")
            log.flush()

        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            from ..model.base import load_base
            from .loop import train

            config = Config.read(folder / "config.json")
            base = load_base(config.model, config.bits)
            for event in train(
                config, base, folder, stop=lambda: bool(interrupted) or (folder / "stop").exists()
            ):
                write(event)
        except BlockingIOError:
            print(f"o treino em {folder} já tem um processo a trabalhar", file=sys.stderr)
            return 2
        except UserError as error:
            write(Failed(0, time.time(), str(error)))
            return 2
        except Exception as error:
            traceback.print_exc()
            write(Failed(0, time.time(), f"o treino falhou ({error}); veja {folder / 'worker.log'}"))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
