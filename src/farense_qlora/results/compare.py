"""The base model against the adapter: one typed row a set of questions, and the same as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from .evaluate import Evaluation
from .text import percent, text_table


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


def changes_text(changes: Sequence[Change]) -> str:
    """The comparison as a table for the terminal."""
    header = ["", "perguntas", "certas antes", "certas depois", "F1 antes", "F1 depois"]
    return text_table(
        header,
        [
            [
                c.name,
                str(c.count),
                percent(c.exact_match_before),
                percent(c.exact_match_after),
                percent(c.f1_before),
                percent(c.f1_after),
            ]
            for c in changes
        ],
    )


def evaluation_text(evaluation: Evaluation) -> str:
    """One evaluation as a table for the terminal: the whole, each kind of question, each table of facts."""
    return text_table(
        ["", "perguntas", "certas", "F1"],
        [
            [label, str(score.count), percent(score.exact_match), percent(score.f1)]
            for label, score in evaluation.table()
        ],
    )
