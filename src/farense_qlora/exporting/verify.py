"""Is what was exported still the trained model? Its own consumer loads it, in a process of its own, and both
are compared on validation questions: their distributions over the true answers, and their greedy answers."""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..answers.generate import BATCH, answers
from ..config import Config
from ..data.chat import spoken, taken
from ..data.load import load_data
from ..data.rows import Row
from ..data.template import settings
from ..data.tokens import Example
from ..errors import UserError
from ..model.adapters import load_adapter
from ..model.base import load_base
from ..model.machine import on_cpu
from ..text import decimal, percent, scientific, text_table
from . import loaders as consumers

REPORT = "verification.json"
QUESTIONS = 100
# A divergence this small is rounding, whatever the adapter did.
ROUNDING = 1e-5
# What each consumer is made of: its modules and, by their side, the packages that have them.
TOOLS = {
    "mlx": {"mlx_lm": "mlx-lm", "mlx": "mlx"},
    "peft": {"peft": "peft", "torch": "torch"},
    "llama": {"llama_cpp": "llama-cpp-python"},
}
Progress = Callable[[str, int, int], object]


@dataclass(frozen=True)
class Limits:
    """What an export must reach: the least share of equal most likely tokens and of equal greedy answers, and
    the most that its divergence may be of the base model's."""

    top1: float
    answers: float
    of_base: float = 0.1


EXACT = Limits(top1=0.99, answers=0.95)
EIGHT_BITS = Limits(top1=0.98, answers=0.90)
FOUR_BITS = Limits(top1=0.90, answers=0.70)


@dataclass(frozen=True)
class Verification:
    """How an export compares with the trained model; `kl` and `kl_base` are the mean divergences, in nats a
    token of the true answers, from the trained model to the export and to the base without adapter."""

    format: str
    consumer: str
    questions: int
    tokens: int
    kl: float
    kl_base: float
    top1: float
    same_answers: float
    same_prompts: float
    limits: Limits

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

    def write(self, folder: Path) -> None:
        """Keep the report as JSON in `folder`; raises `OSError`."""
        report = {**asdict(self), "passed": not self.failures}
        (folder / REPORT).write_text(
            json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )


def verification_text(reports: Sequence[dict[str, Any]]) -> str:
    """A table of what `verification.json` says, a line an export, in Portuguese."""
    header = ("formato", "KL", "KL da base", "mesmo token", "mesma resposta", "perguntas", "lido por")
    rows = [
        (
            report["format"],
            scientific(report["kl"]),
            decimal(report["kl_base"], 3),
            percent(report["top1"]),
            percent(report["same_answers"]),
            str(report["questions"]),
            report["consumer"],
        )
        for report in reports
    ]
    return text_table(header, rows)


def need(tool: str) -> None:
    """Raise `UserError` unless the packages of the consumer `tool` are installed."""
    missing = [package for module, package in TOOLS[tool].items() if find_spec(module) is None]
    if missing:
        raise UserError(
            f"para exportar e verificar neste formato falta {' e '.join(missing)}: instale com «pip install "
            "'farense-qlora[export]'»"
        )


class Reference:
    """The trained model on validation questions, against which exports are held.

    Raises `UserError` when there is no base, no adapter or no validation data. The rows are those that
    training measured; of bare text the first half is what is asked.
    """

    def __init__(
        self,
        config: Config,
        adapter: Path,
        questions: int = QUESTIONS,
        progress: Progress = lambda *_: None,
    ):
        self.base = load_base(config)
        self.tokenizer = self.base.tokenizer
        validation = load_data(config, self.base).validation
        rows = validation.rows()
        rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, questions).astype(int))]
        self.rows = [row for _, row in rows]
        # Of a row with an example an answer the last, which is that of its last question.
        last = np.searchsorted(validation.lines, [line for line, _ in rows], side="right") - 1
        self.examples = [validation[i] for i in last]
        self.positions = [np.flatnonzero(example.supervised[1:]) for example in self.examples]
        self.prompts = [_prompt(example) for example in self.examples]
        self.max_tokens = 8 + max(len(positions) for positions in self.positions)
        self.before = self._logits(lambda done: progress("modelo base", done, len(self.rows)))
        load_adapter(self.base.model, adapter)
        self.after = self._logits(lambda done: progress("modelo treinado", done, len(self.rows)))
        self.answers = answers(self.base, self.prompts, self.max_tokens)
        self.asked = [_asked(row, self.tokenizer) for row in self.rows]

    def forget_base(self) -> None:
        """Give its memory back: the consumer is about to load the model too."""
        del self.base
        gc.collect()
        mx.clear_cache()

    def _logits(self, progress: Callable[[int], object]) -> np.ndarray:
        """The logits (positions of all rows, vocabulary) of the model as it is now."""
        found = []
        for start in range(0, len(self.rows), BATCH):
            part = range(start, min(start + BATCH, len(self.rows)))
            longest = max(len(self.examples[i].tokens) for i in part)
            # What follows a position does not change it, so that the shorter rows may go on with anything.
            tokens = np.stack([np.resize(self.examples[i].tokens, longest) for i in part])
            logits = self.base.model(mx.array(tokens))
            for number, i in enumerate(part):
                found.append(np.array(logits[number, mx.array(self.positions[i])].astype(mx.float32)))
            progress(part.stop)
        return np.concatenate(found)

    def compare(
        self,
        kind: str,
        tool: str,
        model: Path,
        adapter: Path | None,
        limits: Limits,
        progress: Progress = lambda *_: None,
    ) -> Verification:
        """Let the consumer `tool` load `model`, and `adapter` on it, and hold what it says to the reference.

        Raises `UserError` when the consumer fails.
        """
        request = {
            "model": str(model),
            "adapter": str(adapter) if adapter else None,
            "max_tokens": self.max_tokens,
            "rows": [
                {
                    **asked,
                    "prompt": prompt if row.text else None,
                    "tokens": example.tokens.tolist(),
                    "positions": positions.tolist(),
                }
                for row, asked, prompt, example, positions in zip(
                    self.rows, self.asked, self.prompts, self.examples, self.positions, strict=True
                )
            ],
        }
        with tempfile.TemporaryDirectory(prefix="farense-export-") as name:
            logits, said = _consume(
                tool, request, Path(name), lambda done: progress(kind, done, len(self.rows))
            )
        got = [spoken(row["answer"], self.tokenizer).strip() for row in said]
        return Verification(
            kind,
            ", ".join(f"{package} {version(package)}" for package in TOOLS[tool].values()),
            len(self.rows),
            len(self.after),
            divergence(self.after, logits),
            divergence(self.after, self.before),
            _share(self.after.argmax(-1) == logits.argmax(-1)),
            _share([text == other.strip() for text, other in zip(got, self.answers, strict=True)]),
            _share([row["prompt"] == prompt for row, prompt in zip(said, self.prompts, strict=True)]),
            limits,
        )


def _prompt(example: Example) -> list[int]:
    """The tokens before the last answer of `example`, or the first half of a text."""
    ends = np.flatnonzero(np.diff(example.supervised.astype(np.int8)) == 1)
    return example.tokens[: ends[-1] + 1 if len(ends) else max(1, len(example.tokens) // 2)].tolist()


def _asked(row: Row, tokenizer: TokenizerWrapper) -> dict[str, Any]:
    """What a consumer is to make the prompt of `row` from: its messages as the template takes them, and the
    settings of its template."""
    if row.text:
        return {}
    thinking = bool(row.messages[-1].get("reasoning_content"))
    messages, tools = taken(row.messages[:-1], tokenizer, row.tools, thinking), list(row.tools)
    return {
        "messages": messages,
        "tools": tools or None,
        "template": settings(tokenizer, bool(tools), thinking),
    }


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


def _share(equal: Any) -> float:
    return float(np.mean(equal))


def _consume(
    tool: str, request: dict[str, Any], folder: Path, progress: Callable[[int], object]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Run the consumer `tool` on `request` in a process of its own; `folder` is for what goes in and out."""
    asked, errors = folder / "request.json", folder / "stderr"
    asked.write_text(json.dumps(request), encoding="utf-8")
    # Its small compiled kernels ask for a compiler on the CPU; without them mlx computes the same.
    quiet = {"MLX_DISABLE_COMPILE": "1"} if on_cpu() else {}
    command = [sys.executable, "-P", consumers.__file__, tool, str(asked), str(folder)]
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **quiet, "HF_HUB_OFFLINE": "1"},
        ) as process,
    ):
        try:
            done = 0
            for line in process.stdout or ():
                if line == "row\n":
                    progress(done := done + 1)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = errors.read_text(errors="replace").strip().splitlines()
        said = lines[-1] if lines else f"código {process.returncode}"
        raise UserError(
            f"o que foi exportado não se deixa carregar por {' e '.join(TOOLS[tool].values())}: {said}"
        )
    return np.load(folder / "logits.npy"), json.loads((folder / "said.json").read_text(encoding="utf-8"))
