"""Does a config fit this machine? Real worst-case updates tell, in a process whose death costs nothing."""

import json
import os
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
from ..errors import UserError
from ..model import cpu
from ..table import Drawn, Table
from ..text import decimal
from .cost import remember
from .keeper import NO_MEMORY

UPDATES = 3


@dataclass(frozen=True, kw_only=True)
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
        before = asked.model_dump()
        changes = [f"{name} = {value}" for name, value in self.config if before[name] != value]
        changed = ", ".join(changes) or "como pediu"
        if self.peak_gb is None or self.seconds_per_update is None:
            return f"✗ {changed}: não cabe, o processo morreu por falta de memória"
        mark, verb = ("✓", "cabe") if self.fits else ("✗", "não cabe")
        peak, limit, seconds = (decimal(n, 2) for n in (self.peak_gb, self.limit_gb, self.seconds_per_update))
        return f"{mark} {changed}: {verb}, {peak} GB de {limit}; {seconds} s por atualização"


@dataclass(frozen=True, repr=False)
class Fit(Drawn):
    """The config that was asked for and, while they did not fit, the nearest that take less; the last one
    fits, or nothing does."""

    trials: tuple[Trial, ...]

    @property
    def fits(self) -> bool:
        """Whether some config does."""
        return self.trials[-1].fits

    def table(self) -> Table:
        """Each trial in a sentence."""
        asked = self.trials[0].config
        facts = [(f"Tentativa {i}", trial.sentence(asked)) for i, trial in enumerate(self.trials, 1)]
        return Table.of_facts("Memória de treino, medida num processo à parte", facts)


def fit(config: Config, tried: Callable[[Trial], object] = lambda trial: None) -> Fit:
    """Try `config`, and while it does not fit the nearest settings that take less. `tried` is told of each.

    Raises `UserError` on a config that cannot be trained at all, or when the process that tries ends for
    another reason than memory.

    >>> fq.fit(config).fits
    True
    """
    trials: list[Trial] = []
    for candidate in chain([config], smaller(config)):
        trials.append(trial(candidate))
        tried(trials[-1])
        if trials[-1].fits:
            break
    return Fit(tuple(trials))


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

    A process that dies for want of memory is an answer; raises `UserError` with the reason of any other end.
    """
    from ..model.machine import memory_limit

    done = subprocess.run(
        [sys.executable, "-m", "farense_qlora.training.fit"],
        input=config.model_dump_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    limit = memory_limit() / 1e9
    with suppress(ValueError):
        answer = json.loads(done.stdout)
        if error := answer.get("error"):
            raise UserError(error)
        peak, seconds = answer["peak_gb"], answer["seconds"]
        remember(config, peak, seconds)
        return Trial(config=config, peak_gb=peak, limit_gb=limit, seconds_per_update=seconds)
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)  # as Linux does for want of memory
    if killed or NO_MEMORY.search(done.stderr):
        return Trial(config=config, peak_gb=None, limit_gb=limit, seconds_per_update=None)
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    why = lines[-1][:300] if lines else "sem dizer porquê"
    end = f"o sinal {-done.returncode}" if done.returncode < 0 else f"o código {done.returncode}"
    raise UserError(f"não consigo experimentar: o processo acabou com {end} ({why})")


def main() -> int:
    """The process: read a config, do the largest update a few times, say what it took."""
    config = Config.parse(json.load(sys.stdin))
    with suppress(OSError):  # on Linux, if memory runs out let this process be the one that is killed
        Path(f"/proc/{os.getpid()}/oom_score_adj").write_text("1000")
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_measure(config, Path(folder))))
    except UserError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    return 0


def _measure(config: Config, folder: Path) -> dict[str, float]:
    cpu.enable()
    import mlx.core as mx

    from ..data.load import load_data
    from ..model.base import load_base
    from ..model.machine import on_cpu
    from .loop import Trainer

    base = load_base(config)
    data = load_data(config, base)
    trainer = Trainer(config, base, data, folder)

    def largest_batch(n: int) -> int:
        return max(sum(data.training.lengths[row] for row in chain(*batch)) for batch in trainer.sampler[n])

    updates = min(2000, trainer.sampler.updates_per_epoch)  # enough to meet a large one
    n, seconds = max(range(updates), key=largest_batch), []
    for _ in range(UPDATES):
        start = time.perf_counter()
        trainer.step(trainer.batches(n), config.learning_rate)
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


if __name__ == "__main__":
    sys.exit(main())
