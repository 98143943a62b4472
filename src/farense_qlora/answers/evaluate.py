"""How good a model is: how it predicts the true answers, and how right its own are, with bootstrap intervals.

Perplexity and token accuracy; exact match and token F1, as a whole, by kind of question and by table.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..data.batches import collate
from ..data.chat import question_tokens
from ..data.load import Data
from ..data.rows import Row
from ..errors import UserError
from ..files import atomic_write
from ..model.base import Base
from ..model.cpu.blas import blas_threads
from ..model.cpu.parallel import side_by_side, streams
from ..model.loss import LOGITS_AT_ONCE, ROWS_AT_LEAST, head
from ..model.packed import hidden_states
from .generate import answers
from .normalise import normalise, token_f1
from .statistics import Interval, mean_interval

STORED = "evaluation.json"  # in the folder of a run
ROWS_AT_ONCE = 16
# The kinds of question and the tables of facts as people call them.
LABELS = {
    "facto": "um facto",
    "conta": "conta-me",
    "sim-nao": "sim ou não",
    "comparacao": "comparação",
    "conversa": "conversa",
    "club": "clube",
    "coaches": "treinadores",
    "cups": "taças",
    "honours": "palmarés",
    "opponents": "adversários",
    "phases": "fases",
    "presidents": "presidentes",
    "seasons": "épocas",
}


@dataclass(frozen=True)
class Answer:
    """One question with its true answer and the model's; `exact` and `f1` compare the two."""

    question: str
    expected: str
    got: str
    kind: str
    table: str
    exact: bool
    f1: float


@dataclass(frozen=True)
class Score:
    """The share of `count` answers that are right word for word, and their mean token F1, from 0 to 1, each
    with its 95 % interval."""

    count: int
    exact_match: float
    f1: float
    exact_interval: Interval
    f1_interval: Interval


@dataclass(frozen=True)
class Evaluation:
    """The scores on one set of questions, and its answers in the order of the questions; `asdict` gives its
    JSON."""

    name: str
    count: int
    exact_match: float
    f1: float
    exact_interval: Interval
    f1_interval: Interval
    by_kind: dict[str, Score]
    by_table: dict[str, Score]
    answers: tuple[Answer, ...]

    @property
    def wrong(self) -> tuple[Answer, ...]:
        """The answers that are not exact."""
        return tuple(answer for answer in self.answers if not answer.exact)

    def table(self) -> list[tuple[str, Score]]:
        """The whole, then each kind of question and each table of facts, under the names that people read."""
        whole = Score(self.count, self.exact_match, self.f1, self.exact_interval, self.f1_interval)
        groups = [*self.by_kind.items(), *self.by_table.items()]
        return [(self.name, whole), *((LABELS.get(name, name), score) for name, score in groups)]


@dataclass(frozen=True)
class TokenScores:
    """How a model predicts the `tokens` of true answers, given all before each: perplexity (the exponential
    of the mean loss) and the share of tokens that it ranks first, with 95 % intervals over the rows.

    `row_losses` (nats) and `row_tokens` are the sums of each row, for paired comparisons.
    """

    tokens: int
    perplexity: float
    accuracy: float
    perplexity_interval: Interval
    accuracy_interval: Interval
    row_losses: tuple[float, ...]
    row_tokens: tuple[int, ...]


def evaluate(
    base: Base, rows: Sequence[Row], name: str, progress: Callable[[int], object] = lambda done: None
) -> Evaluation:
    """Ask the last question of every conversation in `rows`, given its true earlier turns; score the answers.

    Greedy, so the same model and rows give the same figures. Answers are cut a little beyond the longest
    true one: more cannot be right. Raises `UserError` when `rows` holds no question (`asks`).
    """
    rows = [row for row in rows if asks(row)]
    if not rows:
        raise UserError(f"{name}: não há nenhuma pergunta com resposta em texto para avaliar")
    expected = [row.messages[-1].get("reasoning_content", "") + row.messages[-1]["content"] for row in rows]
    longest = max(len(base.tokenizer.encode(text, add_special_tokens=False)) for text in expected)
    more = 24 if any(row.messages[-1].get("reasoning_content") for row in rows) else 8  # marks of a thought
    got = answers(base, [question_tokens(row, base.tokenizer) for row in rows], longest + more, progress)
    return summary(name, [judge(row, text) for row, text in zip(rows, got, strict=True)])


def asks(row: Row) -> bool:
    """Whether `row` has a question whose answer is text that can be compared."""
    return len(row.messages) > 1 and bool(row.messages[-1]["content"])


def token_scores(base: Base, sets: Data) -> TokenScores:
    """Let `base` predict every supervised token of the validation, cut as in training: the perplexity is the
    exponential of the loss that training measures."""
    data = sets.validation
    logits_of = head(base.model)
    losses, hits, counts = (np.zeros(len(data)) for _ in range(3))
    order = np.argsort(-data.lengths, kind="stable")
    training = base.model.training
    base.model.eval()
    groups = [order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE)]
    count = side_by_side(base.model)
    with blas_threads(1 if count > 1 else None):
        for start in range(0, len(groups), count):
            together = []
            for rows, stream in zip(groups[start : start + count], streams(), strict=False):
                batch = collate([[data[row]] for row in rows])
                with mx.stream(stream):
                    hidden = hidden_states(base.model, mx.array(batch.inputs), None)
                    hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
                together.append((rows, batch, hidden))
            mx.eval([hidden for *_, hidden in together])
            for rows, batch, hidden in together:
                owner = rows[batch.positions // batch.inputs.shape[1]]
                loss, hit = _predictions(logits_of, hidden, mx.array(batch.labels))
                for sums, values in ((losses, loss), (hits, hit), (counts, 1.0)):
                    np.add.at(sums, owner, batch.weights * values)
    base.model.train(training)
    low, high = mean_interval(losses, counts)
    return TokenScores(
        int(counts.sum()),
        math.exp(losses.sum() / counts.sum()),
        float(hits.sum() / counts.sum()),
        (math.exp(low), math.exp(high)),
        mean_interval(hits, counts),
        tuple(map(float, losses)),
        tuple(map(int, counts)),
    )


def _predictions(
    logits_of: Callable[[mx.array], mx.array], hidden: mx.array, labels: mx.array
) -> tuple[np.ndarray, np.ndarray]:
    """The loss (N,) in nats of `labels` (N,) given `hidden` (N, D), and whether each is ranked first; in
    chunks, so that the logits are never held whole."""
    size = max(ROWS_AT_LEAST, LOGITS_AT_ONCE // logits_of(hidden[:1]).shape[-1])
    losses, hits = [], []
    for start in range(0, len(labels), size):
        label = labels[start : start + size]
        logits = logits_of(hidden[start : start + size]).astype(mx.float32)
        chosen = mx.take_along_axis(logits, label[:, None], axis=-1)[:, 0]
        loss, hit = mx.logsumexp(logits, axis=-1) - chosen, logits.argmax(axis=-1) == label
        mx.eval(loss, hit)
        losses.append(np.array(loss))
        hits.append(np.array(hit))
    return np.concatenate(losses), np.concatenate(hits)


def store(run: Path, tokens: TokenScores, before: Sequence[Evaluation], after: Sequence[Evaluation]) -> None:
    """Write the evaluation of an adapter, and of its base `before` if any, to the run folder `run`."""
    about = {
        "tokens": asdict(tokens),
        "before": [asdict(evaluation) for evaluation in before],
        "after": [asdict(evaluation) for evaluation in after],
    }
    with atomic_write(run / STORED) as path:
        path.write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def evaluate_held_out(
    base: Base, data: Data, progress: Callable[[int], object] = lambda done: None
) -> list[Evaluation]:
    """Evaluate every set of questions that was kept from training; none of a set of bare texts."""
    sets = data.held_out().items()
    return [evaluate(base, rows, name, progress) for name, rows in sets if any(map(asks, rows))]


def judge(row: Row, got: str) -> Answer:
    """Compare `got` with the last message of `row`."""
    question, expected = row.messages[-2]["content"], row.messages[-1]["content"]
    exact = normalise(got) == normalise(expected)
    return Answer(question, expected, got.strip(), row.kind, row.table, exact, token_f1(expected, got))


def summary(name: str, judged: Sequence[Answer]) -> Evaluation:
    """The scores of `judged`, as a whole and by group."""
    whole = _score(judged)
    return Evaluation(
        name,
        **asdict(whole),
        by_kind=_by(judged, lambda answer: answer.kind),
        by_table=_by(judged, lambda answer: answer.table),
        answers=tuple(judged),
    )


def _by(judged: Sequence[Answer], group: Callable[[Answer], str]) -> dict[str, Score]:
    names = sorted({group(answer) for answer in judged} & set(LABELS))
    return {name: _score([answer for answer in judged if group(answer) == name]) for name in names}


def _score(judged: Sequence[Answer]) -> Score:
    exact, f1 = [float(answer.exact) for answer in judged], [answer.f1 for answer in judged]
    count = len(judged)
    return Score(count, sum(exact) / count, sum(f1) / count, mean_interval(exact), mean_interval(f1))
