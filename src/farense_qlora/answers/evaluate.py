"""How good a model is: how it predicts the true answers, and how right its own are, with bootstrap intervals.

Perplexity and token accuracy; exact match and token F1, as a whole, by kind of question and by table.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pandas as pd

from ..data.batches import collate
from ..data.chat import question_tokens
from ..data.load import Data, load_data
from ..data.rows import Row
from ..errors import UserError
from ..files import atomic_write
from ..model.base import Base, load_tuned
from ..model.decode import answers, inference
from ..model.loss import token_losses
from ..model.packed import hidden_states
from ..table import Table
from ..text import decimal, percent
from ..training.run import Run
from .normalise import normalise, token_f1

STORED = "evaluation.json"  # in the folder of a run
ROWS_AT_ONCE = 16
RESAMPLES = 2000
LEVEL = 0.95
WRONG_SHOWN = 100  # in a notebook, which keeps what it shows
NO_QUESTIONS = "as linhas são texto corrido: não há perguntas que fazer; a perplexidade diz o que se aprendeu"
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

Interval = tuple[float, float]
Progress = Callable[[int], object]  # told how many answers more have ended; `tqdm.update` fits


@dataclass(frozen=True, kw_only=True)
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

    def __str__(self) -> str:
        return (
            f"validação, {self.tokens} tokens: perplexidade {self.perplexity_text()}, "
            f"tokens certos {with_interval(self.accuracy, self.accuracy_interval)}"
        )

    def perplexity_text(self) -> str:
        """«1,25 [1,20; 1,30]»"""
        low, high = (decimal(bound, 2) for bound in self.perplexity_interval)
        return f"{decimal(self.perplexity, 2)} [{low}; {high}]"


@dataclass(frozen=True, kw_only=True)
class Score:
    """The share of `count` answers that are right word for word, and their mean token F1, from 0 to 1, each
    with its 95 % interval: those to all questions of a `set`, to a `kind`, or about a `table` of facts."""

    set: str
    kind: str = ""
    table: str = ""
    count: int
    exact_match: float
    f1: float
    exact_interval: Interval
    f1_interval: Interval

    @property
    def label(self) -> str:
        """What people call the questions."""
        group = self.kind or self.table
        return f"– {LABELS[group]}" if group else self.set

    def cells(self) -> tuple[str, str]:
        """Right answers and F1 as people read them."""
        return with_interval(self.exact_match, self.exact_interval), with_interval(self.f1, self.f1_interval)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """The answers of a model to questions kept from its training, and what they come to; draws its scores.

    `answers` has a row for each question: `set`, `kind`, `table`, `question`, `expected`, `answer`, whether
    they say the same (`exact`), and their token F1 (`f1`). `tokens` is None where it was not measured;
    `before` is what the base model came to, where that was stored too.
    """

    answers: Table
    tokens: TokenScores | None = None
    before: "Evaluation | None" = None

    @cached_property
    def groups(self) -> list[Score]:
        """The score of each set, followed by those of its kinds of question and of its tables of facts."""
        groups = []
        for name, asked in self.answers.groupby("set", sort=False):
            groups.append(_score(asked, set=str(name)))
            for by in ("kind", "table"):
                for group, some in asked.groupby(by):
                    if group in LABELS:
                        groups.append(_score(some, set=str(name), **{by: str(group)}))
        return groups

    @property
    def sets(self) -> list[Score]:
        """The scores of whole sets."""
        return [score for score in self.groups if not score.kind and not score.table]

    @property
    def scores(self) -> Table:
        """The `groups` as a table, with a column for each field of `Score`."""
        return Table(map(vars, self.groups), formats={"exact_match": percent, "f1": percent})

    @property
    def wrong(self) -> Table:
        """The `answers` that are not exact."""
        return self.answers[~self.answers["exact"]]

    def to_json(self) -> list[dict[str, Any]]:
        """The sets, each with its scores, whole and by group, and its answers, as JSON has them."""
        sets: dict[str, dict[str, Any]] = {}
        for score in self.groups:
            about = asdict(score)
            name, kind, table = (about.pop(key) for key in ("set", "kind", "table"))
            if kind or table:
                sets[name]["by_kind" if kind else "by_table"][kind or table] = about
            else:
                own = self.answers[self.answers["set"] == name].drop(columns="set")
                given = own.rename(columns={"answer": "got"}).to_dict("records")
                sets[name] = {"name": name, **about, "by_kind": {}, "by_table": {}, "answers": given}
        return list(sets.values())

    def save(self, folder: Path, before: "Evaluation | None" = None) -> None:
        """Write this evaluation of an adapter, and that of its base `before` if any, to the run folder."""
        about = {
            "tokens": asdict(self.tokens) if self.tokens else None,
            "before": before.to_json() if before else [],
            "after": self.to_json(),
        }
        with atomic_write(folder / STORED) as path:
            path.write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Evaluation | None":
        """The evaluation that the run folder `folder` has, if any; raises `UserError` on a damaged one."""
        try:
            stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
            before, after = (
                answers_table(
                    {**answer, "set": one["name"], "answer": answer["got"]}
                    for one in stored[when]
                    for answer in one["answers"]
                )
                for when in ("before", "after")
            )
            tokens = TokenScores(**stored["tokens"]) if stored["tokens"] else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{folder / STORED} não se lê: repita a avaliação ou apague-o") from None
        return cls(answers=after, tokens=tokens, before=cls(answers=before) if len(before) else None)

    def _shown(self) -> Table:
        rows = [(score.label, score.count, *score.cells()) for score in self.groups]
        return Table(rows, columns=["", "perguntas", "certas", "F1"], formats={"certas": str, "F1": str})

    def __repr__(self) -> str:
        scores = repr(self._shown()) if len(self.answers) else NO_QUESTIONS
        return f"{self.tokens}\n\n{scores}" if self.tokens else scores

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(str(self.tokens))}</p>"] if self.tokens else []
        parts.append(self._shown()._repr_html_() if len(self.answers) else f"<p>{NO_QUESTIONS}</p>")
        for name, asked in self.answers.groupby("set", sort=False):
            wrong = asked[~asked["exact"]][["question", "expected", "answer"]]
            wrong.columns = ["Pergunta", "✓ certa", "✗ dada"]
            summary = f"{name}: ✓ {len(asked) - len(wrong)}, ✗ {len(wrong)}"
            shown = Table(wrong[:WRONG_SHOWN])._repr_html_()
            parts.append(f"<details><summary>{escape(summary)}</summary>{shown}</details>")
        return "".join(parts)


def evaluate(base: Base, data: Data, progress: Progress = lambda done: None) -> Evaluation:
    """Ask `base` every question that was kept from training, and let it predict the validation.

    Greedy, so the same model and rows give the same figures. In all there are as many answers as `questions`
    gives.
    """
    asked = answer_questions(base, questions(data.held_out()), progress)
    return Evaluation(answers=asked, tokens=token_scores(base, data))


def evaluate_rows(
    base: Base, rows: Sequence[Row], name: str, progress: Progress = lambda done: None
) -> Evaluation:
    """Ask `base` the questions of other `rows`, called `name`; raises `UserError` when there are none."""
    sets = questions({name: rows})
    if not sets:
        raise UserError(f"{name}: não há nenhuma pergunta com resposta em texto para avaliar")
    return Evaluation(answers=answer_questions(base, sets, progress))


def evaluate_run(run: Run, progress: Progress = lambda done: None) -> Evaluation:
    """Evaluate the best adapter of `run` on what was kept from its training; raises `UserError`."""
    config = run.config
    base = load_tuned(config, run.best_adapter)
    return evaluate(base, load_data(config, base.tokenizer, base.path), progress)


def questions(sets: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of each set that have a question whose answer is text that can be compared; a set without any
    is left out."""
    asking = {}
    for name, rows in sets.items():
        asking[name] = [row for row in rows if len(row.messages) > 1 and row.messages[-1]["content"]]
    return {name: rows for name, rows in asking.items() if rows}


def answer_questions(
    base: Base, sets: Mapping[str, Sequence[Row]], progress: Progress = lambda done: None
) -> Table:
    """The last question of each conversation, given its true earlier turns, with the answer of `base`: the
    `answers` of an `Evaluation`.

    They are cut a little beyond the longest true one of a set: more cannot be right.
    """
    judged = []
    for name, rows in sets.items():
        true = [row.messages[-1].get("reasoning_content", "") + row.messages[-1]["content"] for row in rows]
        longest = max(len(base.tokenizer.encode(text, add_special_tokens=False)) for text in true)
        thinking = any(row.messages[-1].get("reasoning_content") for row in rows)
        longest += 24 if thinking else 8  # with the marks of a thought
        given = answers(base, [question_tokens(row, base.tokenizer) for row in rows], longest, progress)
        judged += [judge(name, row, text) for row, text in zip(rows, given, strict=True)]
    return answers_table(judged)


def judge(name: str, row: Row, answer: str) -> dict[str, Any]:
    """Compare `answer` with the last message of `row`, which is of the set `name`: a row of the `answers`."""
    question, expected = row.messages[-2]["content"], row.messages[-1]["content"]
    return {
        "set": name,
        "kind": row.kind,
        "table": row.table,
        "question": question,
        "expected": expected,
        "answer": answer.strip(),
        "exact": normalise(answer) == normalise(expected),
        "f1": token_f1(expected, answer),
    }


def answers_table(judged: Iterable[Mapping[str, Any]]) -> Table:
    """What `judge` gives, as the `answers` of an `Evaluation`."""
    columns = ["set", "question", "expected", "answer", "kind", "table", "exact", "f1"]
    table = Table(list(judged), columns=columns, formats={"exact": _mark, "f1": percent})
    return table.astype({"exact": bool})


def token_scores(base: Base, data: Data) -> TokenScores:
    """Let `base` predict every supervised token of the validation, cut as in training: the perplexity is the
    exponential of the loss that training measures."""
    rows = data.validation
    losses, hits, counts = (np.zeros(len(rows)) for _ in range(3))
    order = np.argsort(-rows.lengths, kind="stable")
    with inference(base.model):
        for start in range(0, len(order), ROWS_AT_ONCE):
            some = order[start : start + ROWS_AT_ONCE]
            batch = collate([[rows[row]] for row in some])
            hidden = hidden_states(base.model, mx.array(batch.inputs), None)
            hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
            loss, first = token_losses(base.model, hidden, mx.array(batch.labels))
            mx.eval(loss, first)
            owner = some[batch.positions // batch.inputs.shape[1]]
            np.add.at(losses, owner, batch.weights * np.array(loss))
            np.add.at(hits, owner, batch.weights * np.array(first))
            np.add.at(counts, owner, batch.weights)
    low, high = mean_interval(losses, counts)
    return TokenScores(
        tokens=int(counts.sum()),
        perplexity=math.exp(losses.sum() / counts.sum()),
        accuracy=float(hits.sum() / counts.sum()),
        perplexity_interval=(math.exp(low), math.exp(high)),
        accuracy_interval=mean_interval(hits, counts),
        row_losses=tuple(map(float, losses)),
        row_tokens=tuple(map(int, counts)),
    )


def mean_interval(values: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0) -> Interval:
    """The percentile bootstrap interval (Efron, 1979), at 95 %, of sum(values) / sum(weights) over items (N,)
    drawn anew; weights of None are ones.

    Two systems on the same items are compared through the differences of their values: the pairs stay
    together, and what makes an item hard for both falls away.
    """
    items = np.asarray(values, float)
    count = len(items)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    ones = np.ones(count) if weights is None else np.asarray(weights, float)
    means = (draws @ items) / (draws @ ones)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def with_interval(share: float, interval: Interval) -> str:
    """«62,5 % [58,1; 66,9]»"""
    low, high = (decimal(100 * bound, 1) for bound in interval)
    return f"{percent(share)} [{low}; {high}]"


def _mark(exact: bool) -> str:
    return "✓" if exact else "✗"


def _score(answers: pd.DataFrame, **group: str) -> Score:
    exact, f1 = list(map(float, answers["exact"])), list(map(float, answers["f1"]))
    return Score(
        **group,
        count=len(answers),
        exact_match=sum(exact) / len(exact),
        f1=sum(f1) / len(f1),
        exact_interval=mean_interval(exact),
        f1_interval=mean_interval(f1),
    )
