"""Turn fact tables into questions: the same wordings serve any club; equal tables give equal questions."""

from ..facts import Tables
from ..language import Club
from . import club as club_facts
from . import coaches, cups, honours, opponents, phases, presidents, seasons
from .form import Question

__all__ = ["Question", "questions", "rows"]

TABLES = (seasons, phases, cups, honours, club_facts, coaches, presidents, opponents)


def questions(tables: Tables, club: Club) -> list[Question]:
    """Every question that the eight `tables` of `club` answer."""
    return [question for table in TABLES for question in table.questions(tables, club)]


def rows(asked: list[Question], heldout: bool = False) -> list[dict[str, object]]:
    """One row for each prompt: the training wordings, or the held-out ones."""
    return [
        {
            "messages": question.messages(prompt),
            "kind": question.kind,
            "table": question.table,
            "fact": question.fact,
        }
        for question in asked
        for prompt in (question.heldout if heldout else question.prompts)
    ]
