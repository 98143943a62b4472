"""Make the data files from the fact tables: equal tables and seed, equal files; no split leaks, and no file
that a person wrote or changed is touched."""

import hashlib
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import HOME
from ..errors import UserError, reason
from ..files import atomic_write, sha256
from ..text import Said, counted
from .careless import careless_row
from .duplicates import alike_groups
from .facts import Tables, read_tables
from .language import Club, opponent_name
from .questions import OFTEN, QUESTIONS, president_name, questions
from .rows import Row
from .unanswerable import unanswerable
from .wordings import UNANSWERABLE, Question

FARENSE = Club("Farense", "o")
# Each file of data, with what of `Prepared` is in it.
FILES = {"train_data.jsonl": "train", "val_data.jsonl": "validation", "unseen_facts.jsonl": "unseen",
         "other_words.jsonl": "other", "unanswerable.jsonl": "unanswerable"}  # fmt: skip
# The SHA-256 of each file as it was written, beside the files: what is not in it is a person's.
WRITTEN = "prepared.json"
FACTS, DATA = HOME / "data" / "facts", HOME / "data"
VALIDATION = 270
UNSEEN = 60
OTHER = 120
# Of the questions without an answer, how many rows to train on for each fact taught, and how many to ask.
TAUGHT_IN_VAIN, ASKED_IN_VAIN = 0.7, 80
CARELESS = 0.4  # of the training rows
# How many seasons of each kind, and names of each table, are held out altogether.
RICH_SEASONS, POOR_SEASONS, COACHES, PRESIDENTS, OPPONENTS = 4, 4, 4, 5, 6

Rows = list[Row]


@dataclass(frozen=True, repr=False)
class Prepared(Said):
    """The rows; `removed` holds the prompts left out because another one is nearly the same, and `kept` the
    files of a person's for whose sake nothing was written."""

    train: Rows
    validation: Rows
    unseen: Rows
    other: Rows
    unanswerable: Rows
    removed: tuple[str, ...]
    kept: tuple[Path, ...] = ()

    def __repr__(self) -> str:
        if self.kept:
            names = ", ".join(path.name for path in self.kept)
            return f"há linhas suas em {names}: ficam como estão, e das tabelas de factos nada foi escrito"
        return (
            f"{counted(len(self.train), 'linha')} de treino, {len(self.validation)} de validação, "
            f"{counted(len(self.other), 'construída')} de outra maneira, {len(self.unanswerable)} sem "
            f"resposta e {len(self.unseen)} de factos nunca vistos; "
            f"{counted(len(self.removed), 'repetição retirada')}"
        )


def prepare(facts: Path = FACTS, to: Path = DATA, seed: int = 0) -> Prepared:
    """Read the tables in `facts` and write the data files into `to`, or none of them: not where `kept` says
    that one is a person's. The wordings are those in the folder `questions` beside `facts`, if there is one.

    Raises `UserError` if it cannot read or write, or when nothing would be left to train on.

    >>> prepared = fq.prepare(to=folder)
    >>> len(prepared.train) > len(prepared.validation) > len(prepared.unseen) > 0
    True
    """
    own = facts.resolve().parent / "questions"
    prepared = split(read_tables(facts), seed, own if own.is_dir() else QUESTIONS)
    if not prepared.train:
        raise UserError(f"as tabelas em {facts} não dão perguntas para treinar, e nada foi escrito")
    texts = {
        name: "".join(row.to_json() + "\n" for row in getattr(prepared, part)) for name, part in FILES.items()
    }
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    if kept := _kept(to, digests):
        return replace(prepared, kept=kept)
    for name, text in (*texts.items(), (WRITTEN, json.dumps(digests, indent=2) + "\n")):
        with atomic_write(to / name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")
    return prepared


def _kept(out: Path, digests: dict[str, str]) -> tuple[Path, ...]:
    """The files in `out` that are neither as `prepare` last wrote them nor as it would write them now."""
    try:
        written = dict(json.loads((out / WRITTEN).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or not ours: then no file counts as ours
        written = {}
    try:
        return tuple(
            out / name
            for name, digest in digests.items()
            if os.path.lexists(out / name) and sha256(out / name) not in (digest, written.get(name))
        )
    except OSError as error:
        raise UserError(f"não consigo ler {error.filename}: {reason(error)}") from None


def split(tables: Tables, seed: int = 0, wordings: Path = QUESTIONS) -> Prepared:
    """Training wordings of the facts taught, a share of them typed carelessly; held-out wordings of the same
    facts, and others still; facts never taught; and questions without an answer, about other clubs, seasons
    and matters than those trained on."""
    rng = random.Random(seed)
    asked = questions(tables, FARENSE, wordings)
    held = _held_out(asked, tables, rng)

    def teachable(asked: list[Question]) -> list[Question]:
        return [question for question in asked if not any(map(held.search, question.texts))]

    taught = teachable(asked)
    secret = [q for q in asked if _is_open(q) and held.search(f"{q.fact} {q.answer}")]
    in_vain = teachable(unanswerable(tables, FARENSE, wordings))
    taught_in_vain, asked_in_vain = _in_vain(in_vain, round(TAUGHT_IN_VAIN * len(taught)), rng)

    train, repeated = _distinct(rows(taught) + taught_in_vain, [])
    validation, in_train = _distinct(_sample(rows(taught, "heldout"), VALIDATION, rng), train)
    unseen, in_others = _distinct(_sample(rows(secret, "heldout"), UNSEEN, rng), train + validation)
    other, in_other = _distinct(_sample(rows(taught, "other"), OTHER, rng), train + validation)
    for part in (train, validation, unseen, other, asked_in_vain):
        rng.shuffle(part)
    for at in rng.sample(range(len(train)), round(CARELESS * len(train))):
        train[at] = careless_row(train[at], rng)
    return Prepared(
        train=train,
        validation=validation,
        unseen=unseen,
        other=other,
        unanswerable=asked_in_vain,
        removed=tuple(repeated + in_train + in_others + in_other),
    )


def _in_vain(asked: Sequence[Question], count: int, rng: random.Random) -> tuple[Rows, Rows]:
    """Of the questions `asked`, which have no answer: `count` rows to train on, and as many of those that are
    off the subject; and others to ask, about other clubs and seasons, or in other wordings."""
    off_topic = [question for question in asked if question.table == UNANSWERABLE]
    others = [question for question in asked if question.table != UNANSWERABLE]
    apart = list(dict.fromkeys(question.subject for question in others))[4::5]
    taught = rows(question for question in others if question.subject not in apart)
    train = rng.sample(taught, min(count, len(taught))) + rows(off_topic)[:count]
    only_asked = off_topic + [question for question in others if question.subject in apart]
    return train, _sample(rows(only_asked, "heldout"), ASKED_IN_VAIN, rng)


def prompt(row: Row) -> str:
    """The first question of `row`."""
    return str(row.messages[0]["content"])


def rows(asked: Iterable[Question], wordings: str = "prompts") -> Rows:
    """One row for each of the `wordings`: the "prompts" of training, the "heldout" ones, or the "other"; with
    the answer as a whole sentence where it is none."""
    return [
        Row(
            question.messages(text),
            kind=question.kind,
            table=question.table,
            fact=question.fact,
            sentence=question.full if question.full != question.answer else "",
        )
        for question in asked
        for text in getattr(question, wordings)
    ]


def _distinct(candidates: Rows, others: Rows) -> tuple[Rows, list[str]]:
    """The candidates that neither repeat one of theirs nor ask nearly what one of the others asks; and the
    prompts of the rest."""
    prompts = [prompt(row) for row in [*candidates, *others]]
    groups = alike_groups([Row(text=text) for text in prompts]).tolist() if others else prompts
    near = set(groups[len(candidates) :])
    kept: dict[str, Row] = {}
    removed = []
    for row, group in zip(candidates, groups, strict=False):
        if group in near or prompt(row) in kept:
            removed.append(prompt(row))
        else:
            kept[prompt(row)] = row
    return list(kept.values()), removed


def _sample(candidates: Rows, size: int, rng: random.Random) -> Rows:
    """About `size` rows, in proportion to their tables and kinds, and at least three of each."""
    groups = defaultdict(list)
    for row in candidates:
        groups[row.table, row.kind].append(row)
    share = size / max(len(candidates), 1)
    return [
        row
        for group in groups.values()
        for row in rng.sample(group, min(max(round(share * len(group)), 3), len(group)))
    ]


def _is_open(question: Question) -> bool:
    """Whether nobody who has not been told would get the answer right."""
    return question.kind == "facto" and not question.guessable


def _held_out(asked: list[Question], tables: Tables, rng: random.Random) -> re.Pattern[str]:
    """What finds the seasons and names about which nothing is taught.

    None is taken that the club's own table or its honours mention: they would tell of it in passing.
    """
    told = "\n".join(text for q in asked if q.table in ("club", "honours") for text in q.texts)
    beaten_by = "\n".join(q.answer for q in asked if q.table == "cups")
    counted = ("seasons", "cups", "coaches", "phases")
    counts = Counter(q.subject for q in asked if _is_open(q) and q.table in counted)
    seasons = [season.season for season in tables.seasons]
    terms = Counter(president.president for president in tables.presidents)
    chosen: list[str] = []
    for names, size in (
        ([season for season in seasons if counts[season] >= 4], RICH_SEASONS),
        ([season for season in seasons if 2 <= counts[season] < 4], POOR_SEASONS),
        ([coach.coach for coach in tables.coaches if counts[coach.coach]], COACHES),
        ([president_name(row) for row in tables.presidents if terms[row.president] == 1], PRESIDENTS),
        ([opponent_name(row.display_pt) for row in tables.opponents if row.matches >= OFTEN], OPPONENTS),
    ):
        free = [name for name in names if name not in told and name not in beaten_by]
        chosen += rng.sample(free, min(size, len(free)))
    any_of = "|".join(map(re.escape, chosen)) or "(?!)"  # which finds nothing
    return re.compile(rf"(?<!\w)(?:{any_of})(?!\w)")
