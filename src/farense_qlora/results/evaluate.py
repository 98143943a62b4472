"""How good the answers are: exact match and token F1, as a whole, by kind of question and by table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..config import HOME, Config
from ..data.rows import Row, read_rows
from ..errors import UserError
from ..model.base import Base
from .generate import answers
from .normalise import normalise, token_f1

UNSEEN = "unseen_facts.jsonl"  # beside the validation file
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
    """The share of `count` answers that are right word for word, and their mean token F1, from 0 to 1."""

    count: int
    exact_match: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """The scores on one set of questions, and the answers that are not exact; `asdict` gives its JSON."""

    name: str
    count: int
    exact_match: float
    f1: float
    by_kind: dict[str, Score]
    by_table: dict[str, Score]
    wrong: tuple[Answer, ...]

    def table(self) -> list[tuple[str, Score]]:
        """The whole, then each kind of question and each table of facts, under the names that people read."""
        whole = Score(self.count, self.exact_match, self.f1)
        groups = [*self.by_kind.items(), *self.by_table.items()]
        return [(self.name, whole), *((LABELS.get(name, name), score) for name, score in groups)]


def held_out(config: Config) -> dict[str, list[Row]]:
    """The questions kept from training: new phrasings and, where `config` has them, unseen facts."""
    validation = HOME / config.val_data
    sets = {"perguntas por outras palavras": validation, "factos nunca vistos": validation.with_name(UNSEEN)}
    return {name: read_rows(path) for name, path in sets.items() if path == validation or path.exists()}


def evaluate(
    base: Base, rows: Sequence[Row], name: str, progress: Callable[[int], object] = lambda done: None
) -> Evaluation:
    """Ask the last question of every conversation in `rows`, given its true earlier turns; score the answers.

    Greedy, so the same model and rows give the same figures. Answers are cut a little beyond the longest
    true one: more cannot be right. Raises `UserError` when `rows` holds no conversation.
    """
    rows = [row for row in rows if len(row.messages) > 1]
    if not rows:
        raise UserError(f"{name}: não há nenhuma conversa («messages») para avaliar")
    expected = [row.messages[-1]["content"] for row in rows]
    longest = max(len(base.tokenizer.encode(text, add_special_tokens=False)) for text in expected)
    got = answers(base, [row.messages[:-1] for row in rows], longest + 8, progress)
    return summary(name, [judge(row, text) for row, text in zip(rows, got, strict=True)])


def evaluate_held_out(
    base: Base, config: Config, progress: Callable[[int], object] = lambda done: None
) -> list[Evaluation]:
    """Evaluate every set of questions that was kept from training."""
    return [evaluate(base, rows, name, progress) for name, rows in held_out(config).items()]


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
        whole.count,
        whole.exact_match,
        whole.f1,
        by_kind=_by(judged, lambda answer: answer.kind),
        by_table=_by(judged, lambda answer: answer.table),
        wrong=tuple(answer for answer in judged if not answer.exact),
    )


def _by(judged: Sequence[Answer], group: Callable[[Answer], str]) -> dict[str, Score]:
    names = sorted({group(answer) for answer in judged} - {""})
    return {name: _score([answer for answer in judged if group(answer) == name]) for name in names}


def _score(judged: Sequence[Answer]) -> Score:
    count = len(judged)
    return Score(count, sum(a.exact for a in judged) / count, sum(a.f1 for a in judged) / count)
