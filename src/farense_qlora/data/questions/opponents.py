"""Opponents met often: how many games, since when, and which of two was met more."""

from collections.abc import Iterator
from typing import Any

from ..facts import Tables
from ..language import Club, capital, counted, with_article
from .cups import opponent_name
from .form import Question, Wordings, ask

OFTEN = 20
MATCHES = Wordings(
    (
        "Quantos jogos fez {o} {com_rival}?",
        "Quantas vezes jogou {o} {com_rival}?",
        "Em quantos jogos se encontraram {o} e {rival}?",
        "Diz-me o número de jogos {do} {com_rival}.",
    ),
    ("Entre {o} e {rival}, quantas partidas se disputaram?", "Quantas vezes mediu {o} forças {com_rival}?"),
)
MORE = Wordings(
    (
        "{O} jogou mais vezes {com_first} ou {com_second}?",
        "Com quem teve {o} mais jogos: {first} ou {second}?",
        "Compara os jogos {do} {com_first} e {com_second}.",
        "Que adversário apanhou {o} mais vezes, {first} ou {second}?",
    ),
    ("{First} e {second}: contra qual disputou {o} mais partidas?",),
)
TALK = Wordings(
    (
        "Queria saber dos encontros {do} {com_rival}. Quantos foram?",
        "Vamos aos jogos {do} {com_rival}: quantos há?",
        "Sobre {o} e {rival}: quantos jogos fizeram?",
        "Estou a ver os jogos {do} {com_rival}. Quantos foram ao todo?",
    ),
    ("Tenho uma dúvida sobre as partidas {do} {com_rival}: que total dão?",),
)


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the opponents in `tables`."""
    known = [opponent for opponent in tables.opponents if opponent.matches >= OFTEN]
    known.sort(key=lambda opponent: (-opponent.matches, opponent.opponent))
    for number, opponent in enumerate(known):
        name = opponent_name(opponent.display_pt)
        keys: dict[str, Any] = {"rival": with_article(name), "com_rival": with_article(name, "com")}
        answer, fact = f"{counted(opponent.matches, 'jogo')}.", f"opponents/{opponent.opponent}"
        yield ask("facto", f"{fact}/matches", MATCHES, answer, club, **keys)
        if number % 4 == 0:
            followups = (("E em que época foi o primeiro?", f"Em {opponent.first_season}."),)
            yield ask("conversa", f"{fact}/talk", TALK, answer, club, followups, **keys)
    for number, (more, less) in enumerate(zip(known[::3], known[4::3], strict=False)):
        if more.matches > less.matches:
            best, other = opponent_name(more.display_pt), opponent_name(less.display_pt)
            first, second = (best, other) if number % 2 else (other, best)
            answer = f"{with_article(best, 'com')}: {more.matches} jogos contra {less.matches}."
            yield ask("comparacao", f"opponents/{more.opponent}+{less.opponent}/more", MORE,
                      capital(answer), club, guessable=True,
                      First=capital(with_article(first)), first=with_article(first),
                      second=with_article(second), com_first=with_article(first, "com"),
                      com_second=with_article(second, "com"))  # fmt: skip
