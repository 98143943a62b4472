"""Titles, promotions, relegations and lost finals, from the rows that a second source confirms."""

from collections.abc import Iterator

from ..facts import Honour, Tables
from ..language import Club, capital, competition, with_article, without_brackets
from .form import Question, Wordings, ask

TITLE = Wordings(
    (
        "Que título ganhou {o} em {season}?",
        "Que prova venceu {o} em {season}?",
        "Que troféu conquistou {o} na época de {season}?",
        "Diz-me o título {do} em {season}.",
    ),
    ("Em {season}, que competição foi ganha {pelo}?", "O que festejou {o} em {season}?"),
)
SERIES = Wordings(
    (
        "Que zona ou série venceu {o} em {season}?",
        "Qual foi a zona ou série ganha {pelo} em {season}?",
        "Que zona ou série teve {o} como vencedor{a} em {season}?",
        "Diz-me a zona ou série que {o} ganhou em {season}.",
    ),
    ("Em {season}, {o} liderou que zona ou série?",),
)
UP = Wordings(
    (
        "A que divisão subiu {o} em {season}?",
        "Para que divisão foi {o} promovid{vogal} em {season}?",
        "A subida {do} em {season} foi a que divisão?",
        "Diz-me a divisão a que {o} subiu em {season}.",
    ),
    ("Em {season}, {o} conseguiu a promoção a que divisão?",),
)
DOWN = Wordings(
    (
        "De que divisão desceu {o} em {season}?",
        "Em {season}, {o} foi despromovid{vogal} de que divisão?",
        "A descida {do} em {season} foi de que divisão?",
        "Diz-me a divisão de que {o} desceu em {season}.",
    ),
    ("Que divisão deixou {o} com a despromoção de {season}?",),
)
FINAL = Wordings(
    (
        "Que final perdeu {o} em {season}?",
        "Que final jogou e perdeu {o} em {season}?",
        "Qual foi a final perdida {pelo} em {season}?",
        "Diz-me a final que {o} perdeu em {season}.",
    ),
    ("Que decisão escapou {ao} em {season}?",),
)
TOLD = Wordings(
    (
        "Conta-me o que ganhou {o} em {season}.",
        "Fala-me do título {do} em {season}.",
        "Faz um resumo do êxito {do} em {season}.",
        "Como ficou {season} na história {do}?",
    ),
    ("Descreve o sucesso {do} em {season}.",),
)
WORDINGS = {
    "titulo": TITLE,
    "titulo_regional": TITLE,
    "vencedor_serie": SERIES,
    "subida": UP,
    "descida": DOWN,
    "final": FINAL,
}


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the honours in `tables`."""
    honours = [honour for honour in tables.honours if honour.verified]
    for honour in honours:
        if honour.kind in WORDINGS:
            yield ask("facto", f"honours/{honour.season}/{honour.kind}", WORDINGS[honour.kind],
                      f"{capital(_answer(honour))}.", club, guessable=True, season=honour.season,
                      a="a" if club.gender == "a" else "")  # fmt: skip
    risen = {honour.season: _answer(honour) for honour in honours if honour.kind == "subida"}
    for honour in honours:
        if honour.kind == "titulo" and honour.season in risen:
            story = f"Ganhou {_answer(honour)}. Subiu {risen[honour.season]}."
            yield ask("conta", f"honours/{honour.season}/story", TOLD, story, club,
                      guessable=True, season=honour.season)  # fmt: skip


def _answer(honour: Honour) -> str:
    """The competition with the preposition that its question asks for: "à I Divisão", "da II Liga"."""
    if honour.kind == "subida":
        goal = without_brackets(honour.notes.removeprefix("subida à ")).split(";")[0]
        return with_article(competition(goal), "a")
    name, _, series = competition(without_brackets(honour.competition)).partition(" - ")
    if honour.kind == "descida":
        return with_article(name, "de")
    if honour.kind == "final":
        return f"a final {with_article(name, 'de')}"
    if series:
        return f"{with_article(series)} {with_article(name, 'de')}"
    if "campeonato nacional" in honour.competition:
        return f"o campeonato nacional {with_article(name, 'de')}"
    return with_article(name)
