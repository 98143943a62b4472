"""The process that trains: it writes the events of a run. It is started by the keeper, which see; both hold
the lock of the run's folder, which dies with them."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO

from ..config import Config
from ..errors import UserError, disk_error
from ..model import cpu, without_torch
from .event_log import EventWriter
from .events import Failed, Saved, Slowed, Started, Stepped
from .hosts import PeerLost
from .keeper import CAUSE, LOG, LOST, RECYCLED, REJOINED, RESTARTED, diagnose
from .peers import Peers
from .power import Pace, hold_sleep_off, trainer_environment
from .requests import read_requests, stops_asked

LOCK = "lock"
# How much more memory than at its first checkpoint a trainer may hold: a factor, and bytes on top.
GROWTH, GROWTH_AT_LEAST = 1.5, 256_000_000
# Looking at a lock takes hold of it for an instant: whoever meets that tries again.
TRIES, SECONDS_BETWEEN_TRIES = 10, 0.02


def take_lock(folder: Path) -> IO[str] | None:
    """Lock the run folder `folder` until the file is closed here and in every process that inherits it; None
    when another process holds it. The system takes the lock back when its holder dies, however it dies.

    Makes the folder where it is not; raises `UserError` when that, or to write there, is refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115  the lock lasts while it is open
    except OSError as error:
        raise disk_error(error, folder) from None
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
    """Start a keeper for the run in `folder` that outlives this process, hand it the `lock` of the folder
    and sign that for people to read; what it and the trainer print goes to `worker.log`."""
    command = [sys.executable, "-m", "farense_qlora.training.keeper", str(folder), str(lock.fileno())]
    with open(folder / LOG, "ab") as log:
        keeper = subprocess.Popen(
            command + ["--accept-changes"] * accept_changes,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock.fileno()],
            env={**trainer_environment(sys.platform, os.environ), "PYTHONUNBUFFERED": "1"},
        )
    hold_sleep_off(keeper.pid)
    now = f"{datetime.now():%d-%m-%Y %H:%M:%S}"
    lock.truncate(0)
    json.dump({"pid": keeper.pid, "computador": os.uname().nodename, "desde": now}, lock)
    lock.flush()
    return keeper


def main(folder: Path, splits: int, accept_changes: bool, restarted: bool) -> int:
    """Train the run in `folder` to its end, each micro-batch halved `splits` times, with its other computers
    if it has any: one that is `restarted` does without those that are gone. Whatever goes wrong is said in a
    `Failed` event, but for a lack of memory and the loss of a computer, which are left to the keeper.

    Whoever starts this process has locked the folder, and hands it the lock and a standard input that ends
    when he does: then this one saves and ends too, since nobody would notice if it hung or died.
    """
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: interrupted.append(received))  # acted on between updates

    def end_with_keeper() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when the keeper, which holds the other end, is gone
        interrupted.append(signal.SIGTERM)

    threading.Thread(target=end_with_keeper, daemon=True).start()

    def stops() -> int:
        os.utime(folder / LOCK)  # a sign of life
        # On SIGTERM, of a computer that is switched off or a keeper that died, nothing is to wait.
        at_once = 2 if signal.SIGTERM in interrupted else 0
        return at_once + len(interrupted) + stops_asked(folder)

    with closing(EventWriter(folder, lambda: stops() > 0)) as log, closing(Peers(folder)) as peers:
        try:
            cpu.enable()
            without_torch()
            from .loop import train
            from .together import load

            peers.gather(goes_on=restarted)
            config, base, data = load(partial(Config.read, folder / "config.json"), log.write)
            requests, pace, held = partial(read_requests, folder), Pace(), list[int]()
            for event in train(config, base, data, folder, requests, accept_changes, stops, splits):
                log.write(event)
                if isinstance(event, Started):
                    for warning in peers.warnings(event):
                        log.write(warning)
                if isinstance(event, Stepped) and (cause := pace.why_slow(event.tokens / event.seconds)):
                    log.write(Slowed(step=event.step, cause=cause))
                if isinstance(event, Saved):
                    held.append(bytes_held())
                    # The first checkpoint of all is from before the first update, or of an earlier process.
                    if len(held) > 2 and held[-1] > GROWTH * held[1] + GROWTH_AT_LEAST:
                        return RECYCLED
                if isinstance(event, Saved) and peers.back:
                    print(f"{CAUSE}«{peers.back}» voltou a responder", file=sys.stderr)
                    return REJOINED
        except UserError as error:
            log.write(Failed(step=0, message=str(error)))
            return 2
        except PeerLost:
            print(CAUSE + peers.lost(), file=sys.stderr)
            return LOST
        except Exception as error:
            traceback.print_exc()
            if not diagnose(1, repr(error), system_killed=False).too_large:
                log.write(Failed(step=0, message=f"o treino falhou ({error}); veja {folder / LOG}"))
            return 1
    return 0


def bytes_held() -> int:
    """The memory that this process has taken and not given back."""
    import mlx.core as mx
    import psutil  # type: ignore[import-untyped]

    mx.clear_cache()
    return mx.get_active_memory() + int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), "--accept-changes" in sys.argv, RESTARTED in sys.argv))
