"""The club itself: founding, ground, firsts, finals, Europe and people, from confirmed rows."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from ..facts import Tables
from ..language import Club, capital, competition, listed, sentence, with_article, without_brackets
from .club_wordings import FACTS, STORIES, TALKS, YES_NO
from .form import Question, ask

NUMBERS = ("Zero", "Um", "Dois", "Três", "Quatro", "Cinco", "Seis", "Sete", "Oito", "Nove", "Dez")


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """A row is asked for when its key has wordings; stories and yes/no put several rows together."""
    people = {_slug(row.coach): row.coach for row in tables.coaches}
    answers: dict[str, str] = {}
    for row in tables.club:
        pattern, keys = _pattern(row.key, people)
        if row.verified and pattern in FACTS:
            shape, answer, wordings = FACTS[pattern]
            found = re.fullmatch(shape, row.value_pt)
            if found:
                answers[pattern] = _filled(answer, [text or "" for text in found.groups()], keys, club)
                yield ask(
                    "facto", f"club/{row.key}", wordings, answers[pattern], club, guessable=True, **keys
                )
                yield from _talk(pattern, row.key, answers, keys, club)
    known = {f"k_{key.replace('*', '')}": answer for key, answer in answers.items()}
    for kind, group in (("conta", STORIES), ("sim-nao", YES_NO)):
        for name, needs, answer, wordings in group:
            if all(need in answers for need in needs):
                parts = {key: text.removesuffix(".") for key, text in known.items()}
                lower = {f"l{key}": text[0].lower() + text[1:] for key, text in parts.items()}
                text = answer.format(**club.forms, **parts, **lower)
                yield ask(kind, f"club/{name}", wordings, text, club, guessable=True)


def _talk(
    pattern: str, key: str, answers: dict[str, str], keys: dict[str, Any], club: Club
) -> Iterator[Question]:
    """A conversation goes on from one row to another that comes before it in the table."""
    if pattern in TALKS:
        first, follow, wordings = TALKS[pattern]
        if first in answers:
            followups = ((follow, answers[pattern]),)
            yield ask("conversa", f"club/{key}/talk", wordings, answers[first], club, followups,
                      guessable=True, **keys)  # fmt: skip


def _pattern(key: str, people: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The key with its year and person taken out: wordings do not depend on them."""
    keys: dict[str, Any] = {}
    for slug, name in people.items():
        if key.startswith(f"{slug}_"):
            key = key.replace(slug, "*", 1)
            keys["name"] = name
            break
    season = re.search(r"_(\d{4})_(\d\d)$", key)
    year = re.search(r"_(\d{4})(?=_|$)", key)
    if season:
        keys["season"] = f"{season[1]}-{season[2]}"
        key = key.replace(season[0], "_*")
    elif year:
        number = int(year[1])
        keys |= {"year": year[1], "season": f"{number - 1}-{number % 100:02d}"}
        key = key.replace(year[0], "_*")
    return key, keys


def _filled(answer: str, groups: list[str], keys: dict[str, Any], club: Club) -> str:
    """`answer` with the parts of the value: {v0} as it stands, {o0} with its article, {lista0} a list."""
    values = {**club.forms, **keys}
    for number, group in enumerate(groups):
        bare = without_brackets(group)
        values |= {
            f"v{number}": bare,
            f"o{number}": with_article(bare) if bare else "",
            f"de{number}": with_article(bare, "de") if bare else "",
            f"no{number}": with_article(bare, "em") if bare else "",
            f"animal{number}": with_article(bare.lower()) if bare else "",
            f"nadiv{number}": with_article(competition(bare), "em") if bare else "",
            f"lista{number}": listed([without_brackets(part) for part in group.split("; ")]),
            f"n{number}": NUMBERS[int(group)] if group.isdigit() and int(group) < len(NUMBERS) else group,
        }
    return capital(sentence(answer.format_map(values)))


@cache
def _slug(name: str) -> str:
    return "_".join(name.lower().split())
