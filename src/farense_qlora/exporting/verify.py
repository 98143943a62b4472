"""Is what was exported still the trained model? Its own tool loads it, in a process of its own, and both are
compared on validation questions: their distributions over the true answers, and their greedy answers."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..data.chat import spoken
from ..data.rows import Row
from ..data.template import Template
from ..data.tokens import Encoded, Example
from ..data.turns import write_prompt
from ..errors import UserError
from ..model.adapters import load_adapter
from ..model.base import Base
from ..model.decode import BATCH, answers
from ..model.loss import backbone_and_head
from ..model.machine import on_cpu
from ..model.packed import hidden_states
from ..table import Table
from ..text import decimal, percent, scientific
from . import loaders
from .kinds import FORMATS, ROUNDED, Thresholds

QUESTIONS = 100
# A divergence this small is rounding, whatever the adapter did.
ROUNDING = 1e-5
# The packages that each tool is made of.
TOOLS = {"mlx": ("mlx-lm", "mlx"), "peft": ("peft", "torch"), "llama": ("llama-cpp-python",)}
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How an export compares with the trained model, as `consumer` reads it; `kl` and `kl_base` are the mean
    divergences, in nats a token of the true answers, from the trained model to the export and to the base
    without adapter, `kl_packed` that from this base to itself, packed as the export is, and the others
    shares: of equal most likely tokens, greedy answers and prompts."""

    format: str
    consumer: str
    questions: int
    tokens: int
    kl: float
    kl_base: float
    top1: float
    same_answers: float
    same_prompts: float
    limits: Thresholds
    kl_packed: float | None = None

    @property
    def failures(self) -> list[str]:
        """What is not as it must be, in Portuguese."""
        limits, wrong = self.limits, []
        most = max(limits.of_base * self.kl_base, ROUNDING)
        if self.same_prompts < 1:
            wrong.append(f"só {percent(self.same_prompts)} das perguntas dão os mesmos tokens")
        if not self.kl <= most:
            wrong.append(
                f"o treino não sobreviveu: a divergência é {scientific(self.kl)} (máximo {scientific(most)})"
            )
        if not self.top1 >= limits.top1:
            wrong.append(f"só {percent(self.top1)} dos tokens concordam (mínimo {percent(limits.top1)})")
        if not self.same_answers >= limits.answers:
            wrong.append(
                f"só {percent(self.same_answers)} das respostas são iguais (mínimo {percent(limits.answers)})"
            )
        return wrong


def verification_table(reports: Sequence[dict[str, Any]]) -> Table:
    """What `verification.json` says, a row an export."""
    columns = {"formato": "format", "KL": "kl", "KL da base": "kl_base", "KL só de compactar": "kl_packed",
               "mesmo token": "top1", "mesma resposta": "same_answers", "perguntas": "questions",
               "lido por": "consumer"}  # fmt: skip
    rows = [{shown: report.get(name) for shown, name in columns.items()} for report in reports]
    formats = {"KL": scientific, "KL da base": decimal, "KL só de compactar": scientific}
    return Table(rows, formats=formats | {"mesmo token": percent, "mesma resposta": percent})


def need(tool: str) -> None:
    """Raise `UserError` unless the packages of `tool` are installed."""
    missing = [package for package in TOOLS[tool] if not any(distributions(name=package))]
    if missing:
        raise UserError(
            f"para exportar e verificar neste formato falta {' e '.join(missing)}: instale com «pip install "
            "'farense-qlora[export]'»"
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the trained model makes of validation questions, against which exports are held.

    `rows` are the questions as `loaders.py` is given them, `prompts` the tokens that it should make of each;
    `logits` (positions of all rows, vocabulary) float32, which lie in a file, and the greedy `answers`, of up
    to `max_tokens`, are the trained model's, `logits_base` those of the base without adapter; `dtype` is what
    it computes in.
    """

    tokenizer: TokenizerWrapper
    rows: list[dict[str, Any]]
    prompts: list[list[int]]
    max_tokens: int
    logits: np.ndarray
    logits_base: np.ndarray
    answers: list[str]
    dtype: mx.Dtype = mx.float32


def measure(
    base: Base,
    adapter: Path,
    validation: Encoded,
    questions: int = QUESTIONS,
    progress: Progress = lambda *_: None,
) -> Reference:
    """Ask `questions` rows of `validation`, at even distances (of bare text the first half), of `base`
    without and then with `adapter`, which stays on it; raises `UserError` when there is no adapter."""
    numbered, prompts, rows = validation.rows(), [], []
    for i in np.unique(np.linspace(0, len(numbered) - 1, questions).astype(int)):
        line, row = numbered[i]
        # Of a row with an example an answer the last, which is that of its last question.
        example = validation[np.searchsorted(validation.lines, line, side="right") - 1]
        prompts.append(_prompt(example))
        rows.append(
            {
                **_messages(row, base.tokenizer),
                "prompt": prompts[-1] if row.text else None,
                "tokens": example.tokens.tolist(),
                "positions": np.flatnonzero(example.supervised[1:]).tolist(),
            }
        )
    max_tokens = 8 + max(len(row["positions"]) for row in rows)
    before = logits_of(base.model, rows, "modelo base", progress)
    load_adapter(base.model, adapter)
    after = logits_of(base.model, rows, "modelo treinado", progress)
    return Reference(
        tokenizer=base.tokenizer,
        rows=rows,
        prompts=prompts,
        max_tokens=max_tokens,
        logits=after,
        logits_base=before,
        answers=answers(base, prompts, max_tokens),
        dtype=hidden_states(base.model, mx.array([[0]]), None).dtype,
    )


def verify(
    reference: Reference,
    format: str,
    model: Path,
    adapter: Path | None,
    progress: Progress = lambda *_: None,
    packed_base: Path | None = None,
) -> Verification:
    """Let the tool of `format` load `model`, and `adapter` on it, and hold what it says to the `reference`;
    and to the base what it says with `packed_base`, the base without adapter in the same format. Raises
    `UserError` when the tool fails."""
    tool, limits = FORMATS[format].tool, FORMATS[format].limits
    if reference.dtype != mx.float32:
        top1, same = min(limits.top1, ROUNDED.top1), min(limits.answers, ROUNDED.answers)
        limits = replace(limits, top1=top1, answers=same)
    logits, said = _asked(reference, tool, model, adapter, lambda *of: progress(format, *of))
    kl_packed = None
    if packed_base:
        alone, _ = _asked(reference, tool, packed_base, None, lambda *of: progress("modelo base, assim", *of))
        kl_packed = divergence(reference.logits_base, alone)
    got = [spoken(row["answer"], reference.tokenizer).strip() for row in said]
    return Verification(
        format=format,
        consumer=", ".join(f"{package} {version(package)}" for package in TOOLS[tool]),
        questions=len(reference.rows),
        tokens=len(reference.logits),
        kl=divergence(reference.logits, logits),
        kl_base=divergence(reference.logits, reference.logits_base),
        kl_packed=kl_packed,
        top1=float(np.mean(reference.logits.argmax(-1) == logits.argmax(-1))),
        same_answers=_share(got, [answer.strip() for answer in reference.answers]),
        same_prompts=_share([row["prompt"] for row in said], reference.prompts),
        limits=limits,
    )


def _asked(
    reference: Reference,
    tool: str,
    model: Path,
    adapter: Path | None,
    progress: Callable[[int, int], object],
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The logits of `model` with `adapter`, as `tool` loads them, and what it said to each question of the
    `reference`: `loaders.py` asks, in a process of its own. Raises `UserError`, with the last line that it
    left, when it fails."""
    request = {"model": model, "adapter": adapter, "max_tokens": reference.max_tokens, "rows": reference.rows}
    # Small compiled kernels ask for a compiler on the CPU; without them mlx computes the same.
    quiet = {"MLX_DISABLE_COMPILE": "1"} if on_cpu() else {}
    with tempfile.TemporaryDirectory(prefix="farense-export-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request, default=str), encoding="utf-8")
        with (
            (folder / "stderr").open("w") as stderr,
            subprocess.Popen(
                [sys.executable, "-P", loaders.__file__, tool, folder / "request.json", folder],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1"},
            ) as process,
        ):
            try:
                for done, _ in enumerate(filter("row\n".__eq__, process.stdout or ()), 1):
                    progress(done, len(reference.rows))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            lines = (folder / "stderr").read_text(errors="replace").strip().splitlines()
            said = lines[-1] if lines else f"código {process.returncode}"
            raise UserError(
                f"o que foi exportado não se deixa carregar por {' e '.join(TOOLS[tool])}: {said}"
            )
        answers = json.loads((folder / "said.json").read_text(encoding="utf-8"))
        # Mapped, the file lives on without its name for as long as the logits are looked at.
        logits = np.memmap(folder / "logits", np.float32, "r")
    if logits.size != reference.logits.size:
        raise UserError("o que foi exportado tem outro número de tokens: exporte como «fused»")
    return logits.reshape(reference.logits.shape), answers


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """The mean Kullback-Leibler divergence KL(p || q), in nats, of logits (positions, vocabulary)."""
    total = 0.0
    for one, other in zip(p, q, strict=True):
        log_p, log_q = _log_softmax(one), _log_softmax(other)
        total += float((np.exp(log_p) * (log_p - log_q)).sum())
    return total / len(p)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _share(those: Sequence[object], these: Sequence[object]) -> float:
    """The share of pairs that are equal."""
    return float(np.mean([one == other for one, other in zip(those, these, strict=True)]))


def _prompt(example: Example) -> list[int]:
    """The tokens before the last answer of `example`, or the first half of a text."""
    ends = np.flatnonzero(np.diff(example.supervised.astype(np.int8)) == 1)
    return example.tokens[: ends[-1] + 1 if len(ends) else max(1, len(example.tokens) // 2)].tolist()


def _messages(row: Row, tokenizer: TokenizerWrapper) -> dict[str, Any]:
    """What a tool is to make the prompt of `row` from: its messages as the template takes them, and the
    settings of its template. Nothing of a bare text."""
    if row.text:
        return {}
    template = Template(tokenizer, row.tools, bool(row.messages[-1].get("reasoning_content")))
    _, messages = write_prompt(template, row.messages[:-1])
    return {"messages": messages, "tools": list(row.tools) or None, "template": template.settings}


def logits_of(
    model: nn.Module, rows: Sequence[dict[str, Any]], what: str = "", progress: Progress = lambda *_: None
) -> np.ndarray:
    """The logits (positions of all rows, vocabulary) of `model` as it is now, called `what` in `progress`, in
    a file that goes with them: for a large vocabulary they are gigabytes."""
    (_, logits_of), vocabulary = backbone_and_head(model), 0
    with tempfile.TemporaryFile() as file:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            longest = max(len(row["tokens"]) for row in part)
            # Attention is causal: it does not matter what the shorter rows are padded with.
            tokens = np.stack([np.resize(row["tokens"], longest) for row in part])
            hidden = hidden_states(model, mx.array(tokens), None)
            for number, row in enumerate(part):  # the head sees these positions only
                logits = logits_of(hidden[number, mx.array(row["positions"])]).astype(mx.float32)
                file.write(np.array(logits).data)
                vocabulary = logits.shape[-1]
            progress(what, start + len(part), len(rows))
        file.flush()
        return np.memmap(file, np.float32, "r").reshape(-1, vocabulary)
