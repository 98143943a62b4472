"""One worker a run folder: a lock that the system takes back when its holder dies, however it dies."""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import IO

NAME = "lock"
# Looking at a lock takes hold of it for an instant: whoever meets that tries again.
TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02


def take(folder: Path) -> IO[str] | None:
    """Lock the run folder `folder` until the file is closed here and in every process that inherits it; None
    when another process holds it."""
    file = open(folder / NAME, "a+", encoding="utf-8")  # noqa: SIM115  the lock lasts as long as it is open
    for _ in range(TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(SECONDS_BETWEEN_TRIES)
    file.close()
    return None


def held(folder: Path) -> bool:
    """Whether a process holds the lock of `folder`."""
    try:
        with open(folder / NAME, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def sign(file: IO[str], pid: int) -> None:
    """Write down who holds the lock, for people to read."""
    file.seek(0)
    file.truncate()
    json.dump(
        {"pid": pid, "computador": os.uname().nodename, "desde": f"{time.strftime('%d-%m-%Y %H:%M:%S')}"},
        file,
    )
    file.flush()


def holder(folder: Path) -> str:
    """Who holds the lock of `folder`, in words; empty when nobody has signed."""
    try:
        who = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return f"processo {who['pid']} em {who['computador']}, desde {who['desde']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
