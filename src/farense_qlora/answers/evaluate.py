"""How right the answers of a model are: exact match and token F1, with intervals.

As a whole, by kind of question and by table of facts; an evaluation has the model's perplexity beside them.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import Any

from ..data.chat import question_tokens
from ..data.load import Data, load_data
from ..data.rows import LABELS, Row
from ..errors import UserError
from ..files import atomic_write
from ..model.base import Base, load_tuned
from ..model.decode import answers
from ..table import Table
from ..text import marked, percent
from ..training.run import Run
from .intervals import Interval, share_interval, with_interval
from .normalise import normalise, refuses, says, token_f1
from .perplexity import TokenScores, token_scores

STORED = "evaluation.json"  # in the folder of a run
WRONG_SHOWN = 100  # in a notebook, which keeps what it shows
NO_QUESTIONS = "as linhas são texto corrido: não há perguntas que fazer; a perplexidade diz o que se aprendeu"
Progress = Callable[[int], object]  # told how many answers more have ended; `tqdm.update` fits


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question with its true answer and the model's; `exact` and `f1` compare the two."""

    question: str
    expected: str
    got: str
    kind: str
    table: str
    exact: bool
    f1: float


@dataclass(frozen=True, kw_only=True)
class Score:
    """The share of `count` answers that are right word for word, and their mean token F1, from 0 to 1, each
    with its 95 % interval; `refused`: the share that say that they do not know."""

    count: int
    exact_match: float
    f1: float
    refused: float
    exact_interval: Interval
    f1_interval: Interval

    def cells(self) -> tuple[str, str]:
        """Right answers and F1 as people read them."""
        return with_interval(self.exact_match, self.exact_interval), with_interval(self.f1, self.f1_interval)


@dataclass(frozen=True, kw_only=True)
class Answered(Score):
    """The scores on one set of questions, and its answers in the order of the questions."""

    name: str
    by_kind: dict[str, Score]
    by_table: dict[str, Score]
    answers: tuple[Answer, ...]

    @property
    def wrong(self) -> list[Answer]:
        """The answers that are not exact."""
        return [answer for answer in self.answers if not answer.exact]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model answers to the `sets` of questions kept from its training; draws its scores.

    `tokens` is None where it was not measured; `before` is what the base model came to, where it was stored.
    """

    sets: tuple[Answered, ...]
    tokens: TokenScores | None = None
    before: "Evaluation | None" = None

    @property
    def answers(self) -> Table:
        """A row for each question: `set`, `question`, `expected`, `answer`, `kind`, `table`, whether the two
        answers say the same (`exact`), and their token F1 (`f1`)."""
        rows = [{"set": one.name, **vars(answer)} for one in self.sets for answer in one.answers]
        columns = ["set", *(field.name for field in fields(Answer))]
        table = Table(rows, columns=columns).astype({"exact": bool}).rename(columns={"got": "answer"})
        return Table(table, formats={"exact": lambda exact: "✓" if exact else "✗", "f1": percent})

    def to_json(self, before: "Evaluation | None" = None) -> dict[str, Any]:
        """This evaluation of an adapter, and that of its base `before` if any, as JSON has them."""
        return {
            "tokens": asdict(self.tokens) if self.tokens else None,
            "before": [asdict(one) for one in before.sets] if before else [],
            "after": [asdict(one) for one in self.sets],
        }

    def save(self, folder: Path, before: "Evaluation | None" = None) -> None:
        """Write what `to_json` gives to the run folder."""
        with atomic_write(folder / STORED) as path:
            text = json.dumps(self.to_json(before), ensure_ascii=False, indent=1)
            path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Evaluation | None":
        """The evaluation that the run folder `folder` has, if any; raises `UserError` on a damaged one."""
        try:
            stored = json.loads((folder / STORED).read_text(encoding="utf-8"))
            before, after = (
                tuple(answered(one["name"], [Answer(**answer) for answer in one["answers"]]) for one in sets)
                for sets in (stored["before"], stored["after"])
            )
            tokens = TokenScores(**stored["tokens"]) if stored["tokens"] else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{folder / STORED} não se lê: repita a avaliação ou apague-o") from None
        return cls(sets=after, tokens=tokens, before=cls(sets=before) if before else None)

    def __repr__(self) -> str:
        scores = repr(_scores(self.sets, in_groups=self.sets[:1])) if self.sets else NO_QUESTIONS
        return f"{self.tokens}\n\n{scores}" if self.tokens else scores

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(str(self.tokens))}</p>"] if self.tokens else []
        parts.append(_scores(self.sets)._repr_html_() if self.sets else f"<p>{NO_QUESTIONS}</p>")
        for one in self.sets:
            wrong = [(answer.question, answer.expected, answer.got) for answer in one.wrong[:WRONG_SHOWN]]
            shown = Table(wrong, columns=["Pergunta", "✓ certa", "✗ dada"])._repr_html_()
            summary = f"{one.name}: ✓ {one.count - len(one.wrong)}, ✗ {len(one.wrong)}"
            groups = _scores((one,), in_groups=(one,))._repr_html_() if one.by_kind or one.by_table else ""
            parts.append(f"<details><summary>{escape(summary)}</summary>{groups}{shown}</details>")
        return "".join(parts)


def _scores(sets: Sequence[Answered], in_groups: Sequence[Answered] = ()) -> Table:
    """The scores of each of `sets`; below those of the sets `in_groups`, under headings, the ones by kind of
    question and by table of facts."""
    rows: list[tuple[object, ...]] = []

    def add(label: str, score: Score) -> None:
        rows.append((label, score.count, *score.cells(), percent(score.refused)))

    for one in sets:
        add(one.name, one)
        groups = {"por tipo de pergunta:": one.by_kind, "por tabela de factos:": one.by_table}
        for heading, scores in groups.items() if one in in_groups else ():
            rows += [(heading, "", "", "", "")] if scores else []
            for name, score in scores.items():
                add(f"– {LABELS[name]}", score)
    columns = ["", "perguntas", "certas", "F1", "diz que não sabe"]
    return Table(rows, columns=columns, formats=dict.fromkeys(columns[1:], str))


def evaluate(
    model: Base | Run, data: Data | None = None, progress: Progress = lambda done: None
) -> Evaluation:
    """Ask `model` every question that was kept from training, and let it predict the validation; a run stands
    for its best adapter, on its own data.

    Greedy, so the same model and rows give the same figures. In all there are as many answers as `questions`
    gives. Raises `UserError` when a run has no adapter.

    >>> after = fq.evaluate(tuned, data)
    >>> after.answers[after.answers["exact"]]["question"].head(1).tolist()
    ['Hassan: quem foi?']
    """
    base = load_tuned(model.config, model.best_adapter) if isinstance(model, Run) else model
    if data is None:
        if not isinstance(model, Run):
            raise TypeError("a model that is not a run needs the data that it is asked about")
        data = load_data(model.config, base)
    sets = answer_questions(base, questions(data.held_out()), progress)
    return Evaluation(sets=sets, tokens=token_scores(base, data.validation))


def evaluate_rows(
    base: Base, rows: Sequence[Row], name: str, progress: Progress = lambda done: None
) -> Evaluation:
    """Ask `base` the questions of other `rows`, called `name`; raises `UserError` when there are none."""
    if not (sets := questions({name: rows})):
        raise UserError(f"{name}: não há nenhuma pergunta com resposta em texto para avaliar")
    return Evaluation(sets=answer_questions(base, sets, progress))


def compare(before: Evaluation | None, after: Evaluation) -> Table:
    """How `after` answers beside `before`: a row for each set of questions, and for each kind in the first,
    with the shares of right answers and the mean F1, from 0 to 1 (missing where `before` has none).

    >>> scores = fq.evaluate(tuned, data)
    >>> fq.compare(scores, scores)["perguntas"].tolist()[0]
    8
    """
    old = {one.name: one for one in before.sets} if before else {}
    rows = []
    for new in after.sets:
        was = old.get(new.name)
        pairs: list[tuple[str, Score | None, Score]] = [(new.name, was, new)]
        if new is after.sets[0]:
            for kind, score in new.by_kind.items():
                pairs.append((f"– {LABELS[kind]}", was.by_kind.get(kind) if was else None, score))
        for label, one, other in pairs:
            exact, f1 = (one.exact_match, one.f1) if one else (math.nan, math.nan)
            rows.append((label, other.count, exact, other.exact_match, f1, other.f1))
    shares = ["certas antes", "certas depois", "F1 antes", "F1 depois"]
    return Table(rows, columns=["", "perguntas", *shares], formats=dict.fromkeys(shares, percent))


def examples(before: Evaluation, after: Evaluation, count: int = 8) -> Table:
    """`count` of the questions that `before` got wrong, with the true answer, its own, and that of `after`;
    both were asked the same questions.

    >>> scores = fq.evaluate(tuned, data)
    >>> fq.examples(scores, scores).columns[0]
    'Pergunta'
    """
    then, now = ([answer for one in each.sets for answer in one.answers] for each in (before, after))
    wrong = [
        (one.question, one.expected, marked(one.got, one.exact), marked(other.got, other.exact))
        for one, other in zip(then, now, strict=True)
        if not one.exact
    ]
    columns = ["Pergunta", "Resposta certa", "Modelo base", "Com o adaptador"]
    return Table(wrong[:: max(1, len(wrong) // count)][:count], columns=columns)


def questions(sets: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of each set that have a question whose answer is text that can be compared; a set without any
    is left out."""
    asking = {
        name: [row for row in rows if len(row.messages) > 1 and row.messages[-1]["content"]]
        for name, rows in sets.items()
    }
    return {name: rows for name, rows in asking.items() if rows}


def answer_questions(
    base: Base, sets: Mapping[str, Sequence[Row]], progress: Progress
) -> tuple[Answered, ...]:
    """Ask the last question of each conversation, given its true earlier turns, and score the answers.

    They are cut a little beyond the longest true one of a set: more cannot be right.
    """
    found = []
    for name, rows in sets.items():
        thoughts = [row.messages[-1].get("reasoning_content", "") for row in rows]
        true = [thought + row.messages[-1]["content"] for thought, row in zip(thoughts, rows, strict=True)]
        true += [row.sentence for row in rows]
        longest = max(len(base.tokenizer.encode(text, add_special_tokens=False)) for text in true)
        longest += 24 if any(thoughts) else 8  # with the marks of a thought
        given = answers(base, [question_tokens(row, base.tokenizer) for row in rows], longest, progress)
        found.append(answered(name, [judge(row, text) for row, text in zip(rows, given, strict=True)]))
    return tuple(found)


def judge(row: Row, got: str) -> Answer:
    """Compare `got` with the last message of `row`, and with the sentence that says the same, if any does."""
    asked, expected = (message["content"] for message in row.messages[-2:])
    sentence = row.sentence if len(row.messages) == 2 else ""
    exact = normalise(got) == normalise(expected)
    return Answer(
        question=asked,
        expected=expected,
        got=got.strip(),
        kind=row.kind,
        table=row.table,
        exact=exact or (bool(sentence) and says(got, sentence, asked, expected)),
        f1=max(token_f1(true, got) for true in (expected, sentence or expected)),
    )


def answered(name: str, judged: Sequence[Answer]) -> Answered:
    """The scores of the `judged` answers to the set `name`, as a whole and by group."""
    kinds = sorted({answer.kind for answer in judged} & LABELS.keys())
    tables = sorted({answer.table for answer in judged} & LABELS.keys())
    return Answered(
        name=name,
        **vars(_score(judged)),
        by_kind={kind: _score([answer for answer in judged if answer.kind == kind]) for kind in kinds},
        by_table={table: _score([answer for answer in judged if answer.table == table]) for table in tables},
        answers=tuple(judged),
    )


def _score(judged: Sequence[Answer]) -> Score:
    count = len(judged)
    exact, f1 = sum(answer.exact for answer in judged) / count, sum(answer.f1 for answer in judged) / count
    return Score(
        count=count,
        exact_match=exact,
        f1=f1,
        refused=sum(refuses(answer.got) for answer in judged) / count,
        exact_interval=share_interval(exact, count),
        f1_interval=share_interval(f1, count),
    )
