"""Does a config fit this machine? Real worst-case updates tell, in a process whose death costs nothing."""

import json
import os
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
from ..model import cpu, without_torch
from ..table import Drawn, Table
from ..text import decimal
from .cost import remember
from .keeper import diagnose
from .power import trainer_environment
from .run import all_runs

UPDATES, SECONDS = 4, 2.0  # that are measured, at least
LIMIT = 1800.0  # seconds until a process that tries is taken to hang; a download before it does not count


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What `config` took: the process's peak memory and the limit, in GB, and the seconds of an update; or,
    when the process died of being too large, the `cause` in Portuguese."""

    config: Config
    limit_gb: float
    peak_gb: float | None = None
    seconds_per_update: float | None = None
    cause: str | None = None

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
            return f"✗ {changed}: não cabe ({self.cause})"
        mark, verb = ("✓", "cabe") if self.fits else ("✗", "não cabe")
        peak, limit, seconds = (decimal(n, 2) for n in (self.peak_gb, self.limit_gb, self.seconds_per_update))
        return f"{mark} {changed}: {verb}, {peak} GB de {limit}; {seconds} s por atualização"


@dataclass(frozen=True, repr=False)
class Fit(Drawn):
    """The config that was asked for and, while they did not fit, the nearest that take less; the last one
    fits, or nothing does. None was tried when `untried` says why, in Portuguese."""

    trials: tuple[Trial, ...]
    untried: str = ""

    @property
    def fits(self) -> bool:
        """Whether some config does."""
        return bool(self.trials) and self.trials[-1].fits

    def table(self) -> Table:
        """Each trial in a sentence."""
        facts = [("Por medir", self.untried)] if self.untried else []
        for i, trial in enumerate(self.trials, 1):
            facts.append((f"Tentativa {i}", trial.sentence(self.trials[0].config)))
        return Table.of_facts("Memória de treino, medida num processo à parte", facts)


def fit(config: Config, tried: Callable[[Trial], object] = lambda trial: None) -> Fit:
    """Try `config`, and while it does not fit the nearest settings that take less. `tried` is told of each.
    Beside a training under way, whose memory it would take, nothing is tried.

    Raises `UserError` on a config that cannot be trained at all, and when the process that tries hangs, or
    ends for another reason than its size.

    >>> fq.fit(config).fits
    True
    """
    if training := next((run.name for run in all_runs() if run.alive), None):
        return Fit(
            (), f"o treino «{training}» está a decorrer, e medir tirava-lhe memória: faça-o quando acabar"
        )
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

    A process that dies of its size is an answer; raises `UserError` with the reason of any other end.
    """
    from ..model.download import find_model
    from ..model.machine import memory_limit

    find_model(config.base_model)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "farense_qlora.training.fit"],
            input=config.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            env=trainer_environment(sys.platform, os.environ),
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"não consigo experimentar: o processo não acabou em {LIMIT / 60:.0f} minutos, e foi terminado; "
            "reinicie o computador e tente outra vez, ou tente com --batch-size e --max-seq-length menores"
        ) from None
    limit = memory_limit() / 1e9
    with suppress(ValueError):
        answer = json.loads(done.stdout)
        if error := answer.get("error"):
            raise UserError(error)
        peak, seconds = answer["peak_gb"], answer["seconds"]
        remember(config, peak, seconds)
        return Trial(config=config, peak_gb=peak, limit_gb=limit, seconds_per_update=seconds)
    death = diagnose(done.returncode, done.stderr, system_killed=True)
    if not death.too_large:
        raise UserError(f"não consigo experimentar: {death.cause}")
    return Trial(config=config, limit_gb=limit, cause=death.cause)


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
    without_torch()
    from ..data.load import load_data
    from ..model.base import load_base
    from ..model.machine import peak_memory
    from .loop import Trainer

    base = load_base(config)
    data = load_data(config, base)
    trainer = Trainer(config, base, data, folder)

    def tokens(n: int) -> list[int]:
        return [sum(data.training.lengths[row] for row in chain(*batch)) for batch in trainer.sampler[n]]

    updates = range(min(2000, trainer.sampler.updates_per_epoch))  # enough to meet a large one
    trainer.step(trainer.batches(max(updates, key=lambda n: max(tokens(n)))), config.learning_rate)
    usual, seconds = sorted(updates, key=lambda n: sum(tokens(n)))[len(updates) // 2], list[float]()
    while len(seconds) < UPDATES or sum(seconds) < SECONDS:
        start = time.perf_counter()
        trainer.step(trainer.batches(usual), config.learning_rate)
        seconds.append(time.perf_counter() - start)
    return {"peak_gb": peak_memory() / 1e9, "seconds": median(seconds[1:])}


if __name__ == "__main__":
    sys.exit(main())
