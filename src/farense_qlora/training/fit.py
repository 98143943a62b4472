"""Does a config fit this machine? Real worst-case updates tell, in a process whose death costs nothing."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median

from ..config import Config
from ..data.batches import BatchSampler
from ..errors import UserError
from ..text import decimal
from .estimate import remember

UPDATES = 3
# How Metal, CUDA, C++, Python and the systems say that there is no memory left.
NO_MEMORY = re.compile(
    r"insufficient memory|out of memory|outofmemory|bad_alloc|MemoryError|cannot allocate|unable to allocate"
    r"|failed to allocate|maximum allowed buffer size|memory allocation.*failed|failed to map segment",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Trial:
    """What `config` took: the process's peak memory and the limit, in GB (peak None: it died of it), and the
    seconds of an update."""

    config: Config
    peak_gb: float | None
    limit_gb: float
    seconds_per_update: float | None

    @property
    def fits(self) -> bool:
        """Whether the updates ended within the limit."""
        return self.peak_gb is not None and self.peak_gb <= self.limit_gb

    def sentence(self, asked: Config) -> str:
        """What was found, in Portuguese; `asked` is the config that the user wanted."""
        before, after = asked.model_dump(), self.config.model_dump()
        changed = ", ".join(f"{k} = {after[k]}" for k in before if before[k] != after[k]) or "como pediu"
        if self.peak_gb is None or self.seconds_per_update is None:
            return f"✗ {changed}: não cabe, o processo morreu por falta de memória"
        mark, verb = ("✓", "cabe") if self.fits else ("✗", "não cabe")
        peak, limit, seconds = (decimal(n, 2) for n in (self.peak_gb, self.limit_gb, self.seconds_per_update))
        return f"{mark} {changed}: {verb}, {peak} GB de {limit}; {seconds} s por atualização"


def fit(config: Config, tried: Callable[[Trial], object] = lambda trial: None) -> list[Trial]:
    """Try `config`, and while it does not fit the nearest settings that take less; the last trial fits, or
    nothing does. `tried` is told of each. Raises `UserError` on a config that cannot be trained at all."""
    trials: list[Trial] = []
    for candidate in chain([config], smaller(config)):
        trials.append(trial(candidate))
        tried(trials[-1])
        if trials[-1].fits:
            break
    return trials


def smaller(config: Config) -> Iterator[Config]:
    """Settings that take ever less memory: first what costs only time, then shorter rows, fewer layers."""
    if not config.grad_checkpoint:
        config = config.changed(grad_checkpoint=True)
        yield config
    while config.batch_size > 1:  # as many rows an update, fewer at a time
        batch, steps = config.batch_size // 2, config.grad_accumulation_steps * 2
        config = config.changed(batch_size=batch, grad_accumulation_steps=steps)
        yield config
    while config.max_seq_length >= 256:
        config = config.changed(max_seq_length=config.max_seq_length // 2)
        yield config
    for layers in (16, 8, 4):
        if config.num_layers == -1 or config.num_layers > layers:
            config = config.changed(num_layers=layers)
            yield config


def trial(config: Config) -> Trial:
    """Measure `config` in a process of its own, and keep the result for `estimate`.

    A process that memory ends is an answer; `UserError` says of any other end why it came to it."""
    done = subprocess.run(
        [sys.executable, "-m", "farense_qlora.training.fit"],
        input=config.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    from ..model.machine import memory_limit

    limit = memory_limit() / 1e9
    with suppress(ValueError):
        answer = json.loads(done.stdout)
        if error := answer.get("error"):
            raise UserError(error)
        remember(config, answer["peak_gb"], answer["seconds"])
        return Trial(config, answer["peak_gb"], limit, answer["seconds"])
    if _starved(done.returncode, done.stderr):
        return Trial(config, None, limit, None)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    why = lines[-1][:300] if lines else "sem dizer porquê"
    end = f"o sinal {-done.returncode}" if done.returncode < 0 else f"o código {done.returncode}"
    raise UserError(f"não consigo experimentar: o processo acabou com {end} ({why})")


def _starved(code: int, said: str) -> bool:
    """Whether a process that ended with `code`, and `said` this, did so for want of memory: the system killed
    it, or an allocation failed."""
    return code in (-signal.SIGKILL, 128 + signal.SIGKILL) or bool(NO_MEMORY.search(said))


def main() -> int:
    """The process: read a config, do the largest update a few times, say what it took."""
    config = Config.parse(json.load(sys.stdin))
    _die_first()
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_measure(config, Path(folder))))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    return 0


def _measure(config: Config, folder: Path) -> dict[str, float]:
    import mlx.core as mx

    from ..model.base import load_base
    from ..model.machine import on_cpu
    from .session import Session

    session = Session(config, load_base(config), folder, accept_changes=False)
    step = _worst(session.order, session.data.training.lengths.tolist())
    seconds = []
    for _ in range(UPDATES):
        start = time.perf_counter()
        session.update(session.batches(step), config.learning_rate)
        seconds.append(time.perf_counter() - start)
    peak = _process_peak() if on_cpu() else mx.get_peak_memory()
    return {"peak_gb": peak / 1e9, "seconds": median(seconds[1:])}


def _process_peak() -> int:
    """The most memory that this process has had, in bytes.

    Linux's `ru_maxrss` is not it: it starts at what the process that launched this one had.
    """
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def _worst(order: BatchSampler, lengths: list[int], most: int = 2000) -> int:
    """The update of the first epoch (of the first `most`) with the largest micro-batch."""

    def tokens(step: int) -> int:
        return max(sum(lengths[row] for rows in batch for row in rows) for batch in order[step])

    return max(range(min(most, order.updates_per_epoch)), key=tokens)


def _die_first() -> None:
    """On Linux, if memory runs out let this process be the one that is killed."""
    with suppress(OSError):
        Path(f"/proc/{os.getpid()}/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    sys.exit(main())
