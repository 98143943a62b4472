"""Finals, promotion rounds and play-offs: wins, draws and losses, and the place where it is known."""

from collections.abc import Iterator
from typing import Any

from ..facts import Phase, Tables
from ..language import Club, counted, ordinal, record, with_article
from .form import Question, Wordings, ask

RECORD = Wordings(
    (
        "Que registo teve {o} {na_fase} de {season}?",
        "Quantos jogos ganhou, empatou e perdeu {o} {na_fase} de {season}?",
        "Qual foi o balanço {do} {na_fase} de {season}?",
        "Diz-me os resultados {do} {na_fase} de {season}: vitórias, empates e derrotas.",
    ),
    ("{Na_fase} de {season}, como se saiu {o}?", "Como ficaram as contas {do} {na_fase} de {season}?"),
)
STORY = Wordings(
    (
        "Conta-me como foi a passagem {do} pela {fase} de {season}.",
        "Fala-me {da_fase} que {o} jogou em {season}.",
        "Faz um resumo {da_fase} de {season} para {o}.",
        "Como correu {ao} a {fase} de {season}?",
    ),
    (
        "{Na_fase} de {season}, que história houve para {o}?",
        "Descreve o percurso {do} {na_fase} de {season}.",
    ),
)


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the phases in `tables`."""
    for phase in tables.phases:
        name = stage(phase)
        keys: dict[str, Any] = {
            "season": phase.season, "fase": name, "na_fase": f"na {name}", "Na_fase": f"Na {name}",
            "da_fase": f"da {name}",
        }  # fmt: skip
        fact = f"phases/{phase.season}/{phase.stage}"
        balance = record(phase.wins, phase.draws, phase.losses)
        yield ask("facto", f"{fact}/record", RECORD, f"Teve {balance}.", club, **keys)
        goals = f"Marcou {counted(phase.goals_for, 'golo')} e sofreu {phase.goals_against}."
        if phase.position is not None:
            story = f"Ficou em {ordinal(phase.position)} lugar, com {balance}. {goals}"
            yield ask("conta", f"{fact}/story", STORY, story, club, **keys)


def stage(phase: Phase) -> str:
    """The phase with its division: "fase final da II Divisão"; the play-off names its own two."""
    name = phase.stage.removesuffix(" (calculada)")
    if name.startswith("liguilha"):
        return "liguilha entre a I e a II Divisão"
    return f"{name} {with_article(phase.division, 'de')}"
