"""Cup campaigns: how far the team went and who knocked it out."""

from collections.abc import Iterator
from typing import Any

from ..facts import Cup, Tables
from ..language import Club, capital, record, with_article, without_brackets
from .form import Question, Wordings, ask

OUT = Wordings(
    (
        "Quem eliminou {o} {na_taca} de {season}?",
        "Que equipa afastou {o} {da_taca} de {season}, e em que ronda?",
        "Qual foi a equipa que eliminou {o} {na_taca} de {season}?",
        "Diz-me quem pôs {o} fora {da_taca} em {season}.",
    ),
    (
        "{Na_taca} de {season}, quem travou {o}?",
        "Qual foi o carrasco {do} {na_taca} de {season}?",
    ),
)
FAR = Wordings(
    (
        "{O} chegou aos quartos de final {da_taca} em {season}?",
        "Em {season}, {o} esteve nos quartos de final {da_taca}?",
        "É verdade que {o} atingiu os quartos de final {da_taca} de {season}?",
        "A campanha {do} {na_taca} de {season} foi até aos quartos de final?",
    ),
    ("{Na_taca} de {season}, {o} alcançou os quartos de final?",),
)
STORY = Wordings(
    (
        "Conta-me a campanha {do} {na_taca} de {season}.",
        "Fala-me {da_taca} de {season} {do}.",
        "Faz um resumo do percurso {do} {na_taca} de {season}.",
        "Como correu {ao} {a_taca} de {season}?",
    ),
    ("Que história fez {o} {na_taca} de {season}?", "Descreve a caminhada {do} {na_taca} de {season}."),
)
TALK = Wordings(
    (
        "Queria saber {da_taca} de {season}: até que ronda foi {o}?",
        "Vamos {à_taca} de {season}. Até onde foi {o}?",
        "Sobre {o} {na_taca} de {season}: em que ronda ficou pelo caminho?",
        "Estou a ver {a_taca} de {season}. A que ronda chegou {o}?",
    ),
    ("Tenho uma dúvida sobre {a_taca} de {season}: {o} avançou até quando?",),
)
LATE = ("quartos de final", "meias-finais", "final")


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the cups in `tables`."""
    names = {opponent.opponent: opponent.display_pt for opponent in tables.opponents}
    cups = [cup for cup in tables.cups if cup.eliminated]
    for cup in cups:
        winner = opponent_name(names.get(cup.last_opponent, cup.last_opponent))
        keys, fact = _keys(cup, club), f"cups/{cup.season}/{cup.competition}"
        answer = f"{capital(with_article(winner))}, {with_article(cup.last_round, 'em')}."
        yield ask("facto", f"{fact}/out", OUT, answer, club, **keys)
        if cup.matches > 4 or cup.last_round in LATE:
            yield from _long(cup, winner, keys, fact, club)
    yield from _far([cup for cup in cups if cup.competition == "Taça de Portugal"], club)


def opponent_name(display: str) -> str:
    """The name as it follows an article: without explanations and without the article of «O Elvas»."""
    return without_brackets(display).removeprefix("O ")


def _keys(cup: Cup, club: Club) -> dict[str, Any]:
    name = cup.competition
    return {
        "season": cup.season, "a_taca": with_article(name), "na_taca": with_article(name, "em"),
        "Na_taca": capital(with_article(name, "em")), "da_taca": with_article(name, "de"),
        "à_taca": with_article(name, "a"), "o_a": club.gender,
    }  # fmt: skip


def _long(cup: Cup, winner: str, keys: dict[str, Any], fact: str, club: Club) -> Iterator[Question]:
    reached = f"Chegou {with_article(cup.last_round, 'a')}"
    beaten = f"Foi eliminad{club.gender} {with_article(winner, 'por')}."
    balance = record(cup.wins, cup.draws, cup.losses)
    yield ask("conta", f"{fact}/story", STORY, f"{reached}, com {balance}. {beaten}", club, **keys)
    yield ask(
        "conversa", f"{fact}/talk", TALK, f"{reached}.", club, (("E quem {o_a} eliminou?", beaten),), **keys
    )


def _far(cups: list[Cup], club: Club) -> Iterator[Question]:
    """As many campaigns that came to the quarter-finals as others."""
    far = [cup for cup in cups if cup.last_round in LATE]
    short = [cup for cup in cups if cup.last_round not in LATE]
    step = max(len(short) // max(len(far), 1), 1)
    for cup in far + short[::step][: len(far)]:
        if cup.last_round in LATE:
            answer = f"Sim, chegou {with_article(cup.last_round, 'a')}."
        else:
            answer = f"Não, ficou {with_article(cup.last_round, 'em')}."
        yield ask("sim-nao", f"cups/{cup.season}/{cup.competition}/far", FAR, answer, club,
                  guessable=True, **_keys(cup, club))  # fmt: skip
