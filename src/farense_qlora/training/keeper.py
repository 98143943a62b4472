"""The process that keeps a training going: it starts the trainer, and starts it again when it dies.

Whatever ends the trainer without a word (the system for want of memory, the watchdog of a GPU, a crash) costs
what came after the last checkpoint. This process imports neither MLX nor anything large: what may kill the
trainer leaves it alone.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from .event_log import NAME, EventWriter
from .events import Failed, Finished, Restarted, from_json
from .requests import STOP, is_requested

LOG = "worker.log"
RESTARTED = "--restarted"  # says to a trainer that nobody has just started the run
RECYCLED = 75  # with which a trainer ends, at a checkpoint, that wants to be started anew
LOST = 76  # and any process that trains with others, when one of them is gone
REJOINED = 77  # and the first, at a checkpoint, when one that was missing answers again
CAUSE = "causa: "  # begins the line of the log in which a trainer says why it ends with one of the two
PAUSES = (0, 5, 20, 60)  # seconds before each new start without progress; then it is given up
# A trainer is ended that gives no sign of life for so many seconds, or many times as long as it ever did.
SILENCE, TIMES_LONGER = 1800.0, 10
MOST_SPLITS = 5  # beyond it a micro-batch holds one row, or what lacks is no memory of ours
SECONDS_BETWEEN_LOOKS = 0.2
TAIL = 50_000  # bytes of a log that are looked at

# How Metal, CUDA, C++, Python and the systems say that there is no memory left.
NO_MEMORY = re.compile(
    r"insufficient memory|out ?of ?memory|bad_alloc|MemoryError|cannot allocate|unable to allocate"
    r"|failed to allocate|maximum allowed buffer size|memory allocation.*failed|failed to map segment",
    re.IGNORECASE,
)
# How Metal says that its watchdog ended a command that held the display up for too long.
WATCHDOG = re.compile(
    r"caused gpu timeout|impacting interactivity|gpu hang|CallbackErrorTimeout", re.IGNORECASE
)


class Death(NamedTuple):
    """Why a trainer died, in Portuguese, and whether a smaller micro-batch may spare it that."""

    cause: str
    too_large: bool = False


def diagnose(code: int, said: str, system_killed: bool) -> Death:
    """What a trainer died of that ended with `code` (negative: the signal) and whose log ends in `said`;
    `system_killed`: the system has killed for want of memory meanwhile, or cannot be asked."""
    if WATCHDOG.search(said):
        return Death("o sistema cortou um cálculo longo da GPU, como faz com o ecrã ligado", too_large=True)
    if NO_MEMORY.search(said):
        return Death("faltou memória", too_large=True)
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        if system_killed:
            return Death("o sistema matou-o, por falta de memória", too_large=True)
        return Death("foi morto por outro programa (SIGKILL)")
    if code < 0:
        return Death(f"o processo foi abaixo ({signal.Signals(-code).name})")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code in (LOST, REJOINED):
        causes = [line.removeprefix(CAUSE) for line in lines if line.startswith(CAUSE)]
        return Death(causes[-1] if causes else "perdeu-se a ligação entre os computadores")
    return Death(f"acabou com o código {code}" + (f": {lines[-1][:200]}" if lines else ""))


class Keeper:
    """Keeps the run in `folder` going, whose lock is inherited as the descriptor `lock`."""

    def __init__(self, folder: Path, lock: int, options: list[str]):
        self.folder = folder
        self._lock, self._options = lock, set(options)
        self._asked_to_stop = False
        self._trainer: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Train to the end; returns the last trainer's exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)
        splits = in_vain = 0
        while True:
            began_at, killed = self._checkpoint(), killed_by_system()
            events_end, log_end = self._size(NAME), self._size(LOG)
            code, silent = self._train(splits, events_end)
            self._options |= {RESTARTED}
            if self._has_ended(events_end) or self._is_to_stop():
                return code
            step = self._checkpoint()
            in_vain = 0 if step > began_at else in_vain + 1
            if code == RECYCLED:
                death = Death("a memória crescia sem razão")
            elif silent:
                death = Death(f"não deu sinal de vida durante {silent / 60:.0f} minutos")
            else:
                said = self._end_of(LOG, log_end)
                death = diagnose(code, said, killed is None or killed_by_system() != killed)
            splits = min(splits + death.too_large, MOST_SPLITS)
            with closing(EventWriter(self.folder, self._is_to_stop)) as log:
                if in_vain > len(PAUSES):
                    message = (
                        f"o treino morreu {in_vain} vezes seguidas sem avançar ({death.cause}): veja "
                        f"{self.folder / LOG}, baixe max_seq_length ou o rank, e comece-o outra vez; "
                        "continua do último ponto de controlo"
                    )
                    log.write(Failed(step=step, message=message))
                    return code
                pause = PAUSES[in_vain - 1] if in_vain else 0
                log.write(Restarted(step=step, cause=death.cause, pause=pause, splits=splits))
            until = time.monotonic() + pause
            while time.monotonic() < until and not self._is_to_stop():
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def _train(self, splits: int, events_end: int) -> tuple[int, float]:
        """Run a trainer to its end: its exit code, and the seconds of silence if they ended it. Before its
        first event, which comes after the first `events_end` bytes, it may download for hours."""
        command = [sys.executable, "-m", "farense_qlora.training.worker", str(self.folder), str(splits)]
        command += sorted(self._options)
        beat, heard, longest = self._heartbeat(), None, 0.0
        self._trainer = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[self._lock])
        while (code := self._trainer.poll()) is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            now = time.monotonic()
            if self._size(NAME) == events_end:
                continue
            if (latest := self._heartbeat()) != beat:
                longest = max(longest, now - heard) if heard else 0.0
                beat, heard = latest, now
            elif heard and now - heard > max(SILENCE, TIMES_LONGER * longest):
                self._trainer.kill()
                return self._trainer.wait(), now - heard
        return code, 0.0

    def _pass_on(self, number: int, _: object) -> None:
        self._asked_to_stop = True
        if self._trainer is not None and self._trainer.poll() is None:
            self._trainer.send_signal(number)

    def _is_to_stop(self) -> bool:
        return self._asked_to_stop or is_requested(self.folder, STOP)

    def _has_ended(self, start: int) -> bool:
        """Whether the last event, after the first `start` bytes of them, says that the run ended."""
        line = self._end_of(NAME, start).rstrip("\n").rpartition("\n")[2]
        return isinstance(from_json(line), Finished | Failed)

    def _checkpoint(self) -> int:
        """The step of the newest checkpoint; -1 without any."""
        names = (path.name for path in self.folder.glob("checkpoints/step-*"))
        return max((int(name[5:]) for name in names if name[5:].isdecimal()), default=-1)

    def _heartbeat(self) -> int:
        """When the trainer last said that it lives."""
        return os.fstat(self._lock).st_mtime_ns

    def _size(self, name: str) -> int:
        with suppress(OSError):
            return (self.folder / name).stat().st_size
        return 0

    def _end_of(self, name: str, start: int) -> str:
        """The end of the file `name`, from `start` at most."""
        with suppress(OSError), open(self.folder / name, "rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - TAIL))
            return file.read().decode(errors="replace")
        return ""


def killed_by_system() -> int | None:
    """How many processes Linux has killed for want of memory since it started; None where nobody counts."""
    with suppress(OSError), open("/proc/vmstat") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), None)
    return None


if __name__ == "__main__":
    sys.exit(Keeper(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).run())
