"""Models side by side: the base and an adapter, or any runs (LoRA, QLoRA) and their base in one protocol.

The same questions, tokens and seeds for all; differences are paired, question by question.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..config import Config
from ..data.load import Data, load_data
from ..errors import UserError
from ..model.adapters import load_adapter
from ..model.base import Base, load_base
from ..training.checkpoints import changes, checkpoints, fingerprints
from ..training.events import Stepped
from ..training.run import Run
from .evaluate import Evaluation, TokenScores, asks, evaluate_held_out, token_scores
from .statistics import Interval, mean_interval

BASE = "base"
# What makes two runs other runs without making the comparison unfair.
FREE = {"profile", "model", "bits", "save_every", "keep_last", "keep_every"}


@dataclass(frozen=True)
class Change:
    """How a set of questions is answered before training and after it; shares from 0 to 1."""

    name: str
    count: int
    exact_match_before: float
    exact_match_after: float
    f1_before: float
    f1_after: float


def compare(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> list[Change]:
    """One row for each set of questions that both evaluated, in the order of `after`."""
    base = {evaluation.name: evaluation for evaluation in before}
    return [
        Change(new.name, new.count, base[new.name].exact_match, new.exact_match, base[new.name].f1, new.f1)
        for new in after
        if new.name in base
    ]


@dataclass(frozen=True)
class Training:
    """What it took to train a run: seconds of updates, all tokens a second, MLX's peak in GB, and the bytes
    of its adapter on the disk."""

    run: str
    updates: int
    seconds: float
    tokens_per_s: float
    peak_memory_gb: float
    adapter_bytes: int


@dataclass(frozen=True)
class Contender:
    """A model in the comparison: the base (without `training`) or a run's best adapter on it.

    `base_gb` is its base in memory, `base_disk_bytes` that base's files; `answer_tokens_per_s` is the speed
    at which it answered all held-out questions, in batches.
    """

    name: str
    bits: int
    training: Training | None
    base_gb: float
    base_disk_bytes: int
    answer_tokens_per_s: float
    tokens: TokenScores
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Difference:
    """`measure` of `one` less that of `other`, on the same items, with its paired 95 % interval; for the
    perplexity their ratio."""

    measure: str
    one: str
    other: str
    value: float
    interval: Interval

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        nothing = 1.0 if self.measure == PERPLEXITY else 0.0
        return not self.interval[0] <= nothing <= self.interval[1]


PERPLEXITY = "perplexidade"


@dataclass(frozen=True)
class Comparison:
    """Contenders under one protocol, how they differ pair by pair, and what a reader must know (`notes`)."""

    model: str
    contenders: tuple[Contender, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


def pair(config: Config) -> list[Config]:
    """The LoRA (16-bit base) and the QLoRA (4-bit base) that differ in nothing else."""
    return [config.changed(bits=bits) for bits in (16, 4)]


def compare_runs(
    runs: Sequence[Run], progress: Callable[[str, int, int], object] = lambda name, done, total: None
) -> Comparison:
    """Measure the base of the last of `runs` and the best adapter of each, one after the other.

    `progress` is told of whom, how many answers are done, and of how many. Raises `UserError` when the runs
    cannot be compared: another model, or other held-out questions.
    """
    configs, names = [run.config for run in runs], _names(runs)
    _check_comparable(runs)
    contenders = []
    for name, run in [(BASE, None), *zip(names, runs, strict=True)]:
        config = run.config if run else configs[-1]
        base = load_base(config)
        data = load_data(configs[0], base)
        if run:
            load_adapter(base.model, run.best_adapter)
        contenders.append(_measure(name, run, base, data, progress))
        del base
    return Comparison(configs[0].model, tuple(contenders), differences(contenders), _notes(runs))


def differences(contenders: Sequence[Contender]) -> tuple[Difference, ...]:
    """Every later contender against every earlier one."""
    found = []
    for other, one in combinations(contenders, 2):
        losses = [a - b for a, b in zip(one.tokens.row_losses, other.tokens.row_losses, strict=True)]
        low, high = mean_interval(losses, one.tokens.row_tokens)
        ratio = math.exp(sum(losses) / one.tokens.tokens)
        found.append(Difference(PERPLEXITY, one.name, other.name, ratio, (math.exp(low), math.exp(high))))
        for mine, theirs in zip(one.evaluations, other.evaluations, strict=True):
            pairs = list(zip(mine.answers, theirs.answers, strict=True))
            for measure, apart in (
                (f"certas: {mine.name}", [float(a.exact) - float(b.exact) for a, b in pairs]),
                (f"F1: {mine.name}", [a.f1 - b.f1 for a, b in pairs]),
            ):
                mean = sum(apart) / len(apart)
                found.append(Difference(measure, one.name, other.name, mean, mean_interval(apart)))
    return tuple(sorted(found, key=lambda difference: difference.measure == PERPLEXITY))


def _names(runs: Sequence[Run]) -> list[str]:
    """«LoRA» and «QLoRA», or the runs' own names where those do not tell them apart."""
    kinds = ["QLoRA" if run.config.bits == 4 else "LoRA" for run in runs]
    return kinds if len(set(kinds)) == len(kinds) else [run.name for run in runs]


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0].config
    for run in runs[1:]:
        for name in ("model", "val_data", *(("train_data",) if not first.val_data else ())):
            if getattr(run.config, name) != getattr(first, name):
                raise UserError(
                    f"«{run.name}» e «{runs[0].name}» não se comparam: {name} é {getattr(run.config, name)} "
                    f"num e {getattr(first, name)} no outro"
                )
    if len({run.name for run in runs}) < len(runs):
        raise UserError("o mesmo treino está duas vezes na lista: diga treinos diferentes")


def _notes(runs: Sequence[Run]) -> tuple[str, ...]:
    """In what the runs differ besides the bits of their base, and what of their data has changed since."""
    notes = []
    dumps = [run.config.model_dump() for run in runs]
    for name in dumps[0]:
        values = [dump[name] for dump in dumps]
        if name not in FREE and any(value != values[0] for value in values):
            notes.append(f"os treinos diferem em {name}: {', '.join(map(str, values))}")
    for run in runs:
        for checkpoint in checkpoints(run.folder)[:1]:
            changed = changes(checkpoint, run.config, fingerprints(run.config))
            notes += [f"desde o treino «{run.name}», {change}" for change in changed]
    if any(run.config.bits == 16 and run.config.model == "mini" for run in runs):
        notes.append(
            "a miniatura só existe em 4 bits: a sua base de 16 bits são esses mesmos pesos, desquantizados; "
            "aqui mede-se o método, não o que a quantização perde"
        )
    return tuple(notes)


def _measure(
    name: str,
    run: Run | None,
    base: Base,
    data: Data,
    progress: Callable[[str, int, int], object],
) -> Contender:
    total, done = sum(sum(map(asks, rows)) for rows in data.held_out().values()), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(name, done, total)

    progress(name, 0, total)
    tokens = token_scores(base, data)
    start = time.perf_counter()
    evaluations = tuple(evaluate_held_out(base, data, count))
    seconds = time.perf_counter() - start
    said = [answer.got for evaluation in evaluations for answer in evaluation.answers]
    total_tokens = sum(len(base.tokenizer.encode(text, add_special_tokens=False)) + 1 for text in said)
    files = sum(path.stat().st_size for path in base.path.glob("model*.safetensors"))
    return Contender(
        name, base.bits, _training(run) if run else None, base.size_gb, files, total_tokens / seconds, tokens,
        evaluations,
    )  # fmt: skip


def _training(run: Run) -> Training:
    steps = [event for event in run.events() if isinstance(event, Stepped)]
    seconds = sum(step.seconds for step in steps)
    return Training(
        run.name,
        len(steps),
        seconds,
        sum(step.tokens for step in steps) / seconds,
        max(step.peak_memory_gb for step in steps),
        (run.best_adapter / "adapters.safetensors").stat().st_size,
    )
