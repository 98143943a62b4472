"""The process that trains: it owns a run folder through a lock that dies with it, and writes its events."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO

from ..config import Config
from ..errors import UserError
from ..model import cpu
from .event_log import EventWriter
from .events import Event, Failed
from .power import hold_sleep_off, trainer_environment
from .requests import STOP, Requests, is_requested, read_requests

LOCK = "lock"
# Looking at a lock takes hold of it for an instant: whoever meets that tries again.
TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02


def take_lock(folder: Path) -> IO[str] | None:
    """Lock the run folder `folder` until the file is closed here and in every process that inherits it; None
    when another process holds it. The system takes the lock back when its holder dies, however it dies."""
    file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  the lock lasts as long as it is open
    for _ in range(TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(SECONDS_BETWEEN_TRIES)
    file.close()
    return None


def is_locked(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock_holder(folder: Path) -> str:
    """Who holds the lock of `folder`, in words; empty when nobody has signed it."""
    try:
        who = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f"processo {who['pid']} em {who['computador']}, desde {who['desde']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def launch(folder: Path, lock: IO[str], accept_changes: bool) -> "subprocess.Popen[bytes]":
    """Start a worker for the run in `folder` that outlives this process, hand it the `lock` of the folder
    and sign that for people to read; what it prints goes to `worker.log`."""
    command = [sys.executable, "-m", "farense_qlora.training.worker", str(folder)]
    with open(folder / "worker.log", "ab") as log:
        worker = subprocess.Popen(
            command + ["--accept-changes"] * accept_changes,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock.fileno()],
            env={**trainer_environment(sys.platform, os.environ), "PYTHONUNBUFFERED": "1"},
        )
    hold_sleep_off(worker.pid)
    now = f"{datetime.now():%d-%m-%Y %H:%M:%S}"
    lock.truncate(0)
    json.dump({"pid": worker.pid, "computador": os.uname().nodename, "desde": now}, lock)
    lock.flush()
    return worker


def main(folder: Path, accept_changes: bool) -> int:
    """Train the run in `folder` to its end; whatever goes wrong is said in a `Failed` event.

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

    with closing(EventWriter(folder, should_stop)) as log:
        try:
            cpu.enable()
            from ..data.load import load_data
            from ..model.base import load_base
            from .loop import train

            config = Config.read(folder / "config.json")
            base = load_base(config)
            data = load_data(config, base)
            for event in train(config, base, data, folder, requests, accept_changes, should_stop):
                log.write(event)
        except UserError as error:
            log.write(_failed(str(error)))
            return 2
        except Exception as error:
            traceback.print_exc()
            log.write(_failed(f"o treino falhou ({error}); veja {folder / 'worker.log'}"))
            return 1
    return 0


def _failed(message: str) -> Event:
    return Failed(step=0, message=message)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--accept-changes" in sys.argv))
