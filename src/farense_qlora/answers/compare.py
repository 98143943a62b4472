"""Runs side by side: their base and the best adapter of each (LoRA, QLoRA or any others) in one protocol.

The same questions, tokens and seeds for all; differences are paired, question by question.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from html import escape
from itertools import combinations
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.load import Data, load_data
from ..errors import UserError
from ..files import atomic_write
from ..model.adapters import WEIGHTS
from ..model.base import Base, load_base, load_tuned
from ..table import Table
from ..text import decimal, duration, size
from ..training.checkpoints import changes, checkpoints, fingerprints
from ..training.events import Stepped, of
from ..training.run import Run
from .evaluate import Answer, Answered, answer_questions, questions
from .intervals import Interval, mean_interval, with_interval
from .perplexity import TokenScores, token_scores

BASE = "base"
PERPLEXITY, GENERAL = "perplexidade", "perplexidade em português geral"
# What makes two runs other runs without making the comparison unfair.
MAY_DIFFER = {"profile", "model", "bits", "quantization", "group_size", "save_every", "keep_last"}

Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What it took to train a run: seconds of updates, all tokens a second, MLX's peak in GB, and the bytes
    of its adapter on the disk."""

    run: str
    updates: int
    seconds: float
    tokens_per_s: float
    peak_memory_gb: float
    adapter_bytes: int


@dataclass(frozen=True, kw_only=True)
class Entry:
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
    general: TokenScores
    evaluations: tuple[Answered, ...]

    def cells(self) -> dict[str, str]:
        """Every measure as people read it, under its name."""
        tokens, training, shown = self.tokens, self.training, {}
        for one in self.evaluations:
            shown[f"{one.name}: certas"], shown[f"{one.name}: F1"] = one.cells()
        return {
            **shown,
            "perplexidade na validação": tokens.perplexity_text(),
            GENERAL: self.general.perplexity_text(),
            "tokens certos na validação": with_interval(tokens.accuracy, tokens.accuracy_interval),
            "bits da base": str(self.bits),
            "tempo das atualizações": duration(training.seconds) if training else "—",
            "atualizações": str(training.updates) if training else "—",
            "treino, tokens/s": decimal(training.tokens_per_s, 0) if training else "—",
            "pico de memória do treino": f"{decimal(training.peak_memory_gb, 2)} GB" if training else "—",
            "adaptador no disco": size(training.adapter_bytes / 1e9) if training else "—",
            "base no disco": size(self.base_disk_bytes / 1e9),
            "base em memória": size(self.base_gb),
            "resposta em lotes, tokens/s": decimal(self.answer_tokens_per_s, 0),
        }


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`measure`, as people call it, of `one` less that of `other` on the same items, with its paired 95 %
    interval; of a perplexity it is the `ratio` to that."""

    measure: str
    one: str
    other: str
    value: float
    interval: Interval

    @property
    def ratio(self) -> bool:
        """Whether 1 is no difference, and not 0."""
        return self.measure in (PERPLEXITY, GENERAL)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out "no difference"."""
        return not self.interval[0] <= float(self.ratio) <= self.interval[1]

    def cells(self) -> tuple[str, str, str, str]:
        """As people read it: of what, of whom to whom, how much, how sure."""
        numbers = (self.value, *self.interval)
        if self.ratio:
            value, low, high = (f"×{decimal(number, 3)}" for number in numbers)
        else:
            value, low, high = (f"{'−' if n < 0 else '+'}{decimal(abs(100 * n), 1)}" for n in numbers)
            value += " p.p."
        verdict = "sim" if self.clear else "não se distingue"
        to = "à base" if self.other == BASE else f"a {self.other}"
        return self.measure, f"{self.one} face {to}", f"{value} [{low}; {high}]", verdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Models under one protocol, how each later one differs from each earlier one (`pairs`), and what a
    reader must know (`notes`); draws its measures and differences."""

    model: str
    contenders: tuple[Entry, ...]
    pairs: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """What the models are called."""
        return [entry.name for entry in self.contenders]

    @property
    def measures(self) -> Table:
        """All measures, a column for each model."""
        columns = [entry.cells() for entry in self.contenders]
        rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
        return Table(rows, columns=["", *self.names], formats=dict.fromkeys(self.names, str))

    @property
    def differences(self) -> Table:
        """The `pairs` as people read them."""
        header = ["medida", "quem", "diferença [95 %]", "há diferença?"]
        return Table([pair.cells() for pair in self.pairs], columns=header, formats={header[2]: str})

    @property
    def answers(self) -> Table:
        """Every question with its true answer and that of each model."""
        rows = [(a[0].question, a[0].expected, *(answer.got for answer in a)) for a in self.asked()]
        return Table(rows, columns=["Pergunta", "Resposta verdadeira", *self.names])

    def asked(self) -> list[tuple[Answer, ...]]:
        """Each question, with the answers in the order of the models."""
        sets = zip(*(entry.evaluations for entry in self.contenders), strict=True)
        return [same for one in sets for same in zip(*(of.answers for of in one), strict=True)]

    def to_json(self) -> dict[str, Any]:
        """As `compare.json` has it."""
        about = asdict(self)
        about["differences"] = about.pop("pairs")
        return about

    def save(self, folder: Path) -> None:
        """Write `compare.json` and `compare.md` to `folder`; raises `UserError` when it cannot."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        tables = [self.measures.to_markdown(), self.differences.to_markdown(), notes]
        about = json.dumps(self.to_json(), ensure_ascii=False, indent=1)
        for name, text in (("compare.json", about), ("compare.md", "\n\n".join(tables))):
            with atomic_write(folder / name) as path:
                path.write_text(text + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        tables = [repr(self.measures), repr(self.differences)]
        return "\n\n".join([*tables, *(f"nota: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"{self.measures._repr_html_()}{self.differences._repr_html_()}<ul>{notes}</ul>"


def compare_runs(runs: Sequence[Run], progress: Progress = lambda name, done, total: None) -> Comparison:
    """Measure the base of the last of `runs` and the best adapter of each, one after the other.

    `progress` is told of whom, how many answers are done, and of how many. Raises `UserError` when the runs
    cannot be compared: another model, or other held-out questions.

    >>> fq.compare_runs([run]).names
    ['base', 'QLoRA']
    """
    _check_comparable(runs)
    first, last = runs[0].config, runs[-1].config
    kinds = ["QLoRA" if run.config.bits < 16 else "LoRA" for run in runs]
    names = kinds if len(set(kinds)) == len(kinds) else [run.name for run in runs]
    base = load_base(last)
    entries = [_measure(BASE, None, base, load_data(first, base), progress)]
    for name, run in zip(names, runs, strict=True):
        del base  # before the next is loaded
        base = load_tuned(run.config, run.best_adapter)
        entries.append(_measure(name, run, base, load_data(first, base), progress))
    return Comparison(
        model=first.model,
        contenders=tuple(entries),
        pairs=tuple(differences(entries)),
        notes=tuple(_notes(runs)),
    )


def differences(entries: Sequence[Entry]) -> list[Difference]:
    """How every later entry differs from every earlier one, item by item; the perplexities last."""
    shares, ratios = [], []
    for other, one in combinations(entries, 2):
        found = partial(Difference, one=one.name, other=other.name)
        for mine, theirs in zip(one.evaluations, other.evaluations, strict=True):
            pairs = list(zip(mine.answers, theirs.answers, strict=True))
            for measure, apart in (
                (f"certas: {mine.name}", [float(a.exact) - float(b.exact) for a, b in pairs]),
                (f"F1: {mine.name}", [a.f1 - b.f1 for a, b in pairs]),
            ):
                mean = sum(apart) / len(apart)
                shares.append(found(measure=measure, value=mean, interval=mean_interval(apart)))
        for measure, now, then in (
            (PERPLEXITY, one.tokens, other.tokens),
            (GENERAL, one.general, other.general),
        ):
            losses = [a - b for a, b in zip(now.row_losses, then.row_losses, strict=True)]
            low, high = mean_interval(losses, now.row_tokens)
            ratio = math.exp(sum(losses) / now.tokens)
            ratios.append(found(measure=measure, value=ratio, interval=(math.exp(low), math.exp(high))))
    return shares + ratios


def _check_comparable(runs: Sequence[Run]) -> None:
    first = runs[0].config
    for run in runs[1:]:
        for name in ("model", "val_data" if first.val_data else "train_data"):
            here, there = getattr(run.config, name), getattr(first, name)
            if here != there:
                raise UserError(
                    f"«{run.name}» e «{runs[0].name}» não se comparam: {name} é {here} num e {there} no outro"
                )
    if len({run.name for run in runs}) < len(runs):
        raise UserError("o mesmo treino está duas vezes na lista: diga treinos diferentes")


def _notes(runs: Sequence[Run]) -> list[str]:
    """In what the runs differ besides the bits of their base, and what of their data has changed since."""
    notes = []
    for name in Config.model_fields:
        values = [getattr(run.config, name) for run in runs]
        if name not in MAY_DIFFER and any(value != values[0] for value in values):
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
    return notes


def _measure(name: str, run: Run | None, base: Base, data: Data, progress: Progress) -> Entry:
    sets, done = questions(data.held_out()), 0
    total = sum(map(len, sets.values()))

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(name, done, total)

    count(0)
    start = time.perf_counter()
    evaluations = answer_questions(base, sets, count)
    seconds = time.perf_counter() - start
    said = [answer.got for one in evaluations for answer in one.answers]
    said_tokens = sum(len(base.tokenizer.encode(text, add_special_tokens=False)) + 1 for text in said)
    return Entry(
        name=name,
        bits=base.bits,
        training=_training(run) if run else None,
        base_gb=base.size_gb,
        base_disk_bytes=sum(path.stat().st_size for path in base.path.glob("model*.safetensors")),
        answer_tokens_per_s=said_tokens / seconds,
        tokens=token_scores(base, data.validation),
        general=token_scores(base, data.general),
        evaluations=evaluations,
    )


def _training(run: Run) -> Training:
    steps = of(run.events(), Stepped)
    seconds = sum(step.seconds for step in steps)
    return Training(
        run=run.name,
        updates=len(steps),
        seconds=seconds,
        tokens_per_s=sum(step.tokens for step in steps) / seconds if seconds else 0.0,
        peak_memory_gb=max((step.peak_memory_gb for step in steps), default=0.0),
        adapter_bytes=(run.best_adapter / WEIGHTS).stat().st_size,
    )
