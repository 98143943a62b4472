"""League seasons: place, points, goals, ups and downs, and how two seasons compare."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from ..facts import Season, Tables
from ..language import Club, competition, counted, ordinal, with_article
from .form import Question, Wordings, ask

POSITION = Wordings(
    (
        "Em que lugar ficou {o} na época de {season}?",
        "Qual foi a classificação {do} no campeonato de {season}?",
        "Que posição alcançou {o} em {season}?",
        "Diz-me em que lugar {o} acabou a época de {season}.",
    ),
    ("Em {season}, que lugar da tabela coube {ao}?", "Como se classificou {o} na temporada de {season}?"),
)
POINTS = Wordings(
    (
        "Quantos pontos somou {o} na época de {season}?",
        "Com quantos pontos terminou {o} o campeonato de {season}?",
        "Qual foi a pontuação {do} em {season}?",
        "Diz-me os pontos {do} na época de {season}.",
    ),
    ("Em {season}, que total de pontos juntou {o}?", "Quantos pontos fez {o} na temporada de {season}?"),
)
GOALS = Wordings(
    (
        "Quantos golos marcou e sofreu {o} no campeonato de {season}?",
        "Que golos fez e sofreu {o} em {season}?",
        "Diz-me os golos marcados e sofridos {pelo} na época de {season}.",
        "Como ficaram os golos {do} na época de {season}?",
    ),
    (
        "Em {season}, {o} fez e consentiu quantos golos?",
        "Quantos golos teve {o} na temporada de {season}, a favor e contra?",
    ),
)
STORY = Wordings(
    (
        "Conta-me como foi o campeonato {do} em {season}.",
        "Fala-me da época de {season} {do}.",
        "Faz um resumo da época {do} em {season}.",
        "Como correu {ao} a época de {season}?",
    ),
    ("Que história tem o campeonato de {season} {do}?", "Descreve a temporada de {season} {do}."),
)
RELEGATED = Wordings(
    (
        "{O} desceu de divisão na época de {season}?",
        "Em {season}, {o} foi despromovid{vogal}?",
        "É verdade que {o} desceu em {season}?",
        "A época de {season} acabou com a descida {do}?",
    ),
    ("{O} caiu de escalão em {season}?", "Houve despromoção {do} na temporada de {season}?"),
)
PROMOTED = Wordings(
    (
        "{O} subiu de divisão na época de {season}?",
        "Em {season}, {o} foi promovid{vogal}?",
        "É verdade que {o} subiu em {season}?",
        "A época de {season} acabou com a subida {do}?",
    ),
    ("{O} passou ao escalão de cima em {season}?", "Houve promoção {do} na temporada de {season}?"),
)
BETTER_PLACE = Wordings(
    (
        "Em que época ficou {o} mais bem classificad{vogal}: {first} ou {second}?",
        "{O} ficou melhor na tabela em {first} ou em {second}?",
        "Compara a classificação {do} em {first} e em {second}.",
        "Entre {first} e {second}, em qual foi melhor o lugar {do}?",
    ),
    ("Qual das épocas {first} e {second} deu melhor posição {ao}?",),
)
MORE_GOALS = Wordings(
    (
        "Em que época marcou {o} mais golos: {first} ou {second}?",
        "{O} fez mais golos em {first} ou em {second}?",
        "Compara os golos marcados {pelo} em {first} e em {second}.",
        "Entre {first} e {second}, em qual marcou {o} mais vezes?",
    ),
    ("Qual das épocas {first} e {second} rendeu mais golos {ao}?",),
)
TALK = Wordings(
    (
        "Queria saber do campeonato {do} em {season}. Em que lugar ficou?",
        "Vamos à época de {season}: que lugar conseguiu {o}?",
        "Sobre {o} em {season}: qual foi a classificação?",
        "Estou a ver a época de {season} {do}. Em que posição terminou?",
    ),
    ("Tenho uma dúvida sobre a temporada de {season} {do}: como se classificou?",),
)


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every season's place; the rest for the top division, which people ask about most."""
    top = [season for season in tables.seasons if season.tier == 1]
    for season in tables.seasons:
        yield ask("facto", f"seasons/{season.season}/position", POSITION, position(season), club,
                  guessable=True, season=season.season)  # fmt: skip
    for season in top:
        yield from _top(season, club)
    yield from _moves(tables.seasons, club)
    for number, (earlier, later) in enumerate(pairwise(top)):
        pair = (later, earlier) if number % 2 else (earlier, later)
        yield from _compare(pair, by_place=number % 4 < 2, club=club)


def place(season: Season) -> str:
    """Where the team played, as said after a place: "na I Divisão", "na Zona Sul da II Divisão"."""
    name = competition(season.division)
    if season.stage != "fase regular":
        return f"{with_article(season.stage, 'em')} {with_article(name, 'de')}"
    if "/" in season.series:
        return f"na sua série {with_article(name, 'de')}"
    if season.series:
        return f"{with_article(season.series, 'em')} {with_article(name, 'de')}"
    return with_article(name, "em")


def position(season: Season) -> str:
    """Where Farense came in `season`, in words."""
    return f"Ficou em {ordinal(season.position)} lugar {place(season)}."


def _goals(season: Season) -> str:
    return f"Marcou {counted(season.goals_for, 'golo')} e sofreu {season.goals_against}."


def _top(season: Season, club: Club) -> Iterator[Question]:
    key, fact = season.season, f"seasons/{season.season}"
    points = "" if season.points is None else counted(season.points, "ponto")
    goals = _goals(season)
    yield ask("facto", f"{fact}/goals", GOALS, goals, club, season=key)
    if points:
        yield ask("facto", f"{fact}/points", POINTS, f"Somou {points}.", club, season=key)
        story = f"{position(season)[:-1]}, com {points}. {goals}"
        yield ask("conta", f"{fact}/story", STORY, story, club, season=key)
    if int(key[:4]) % 2 == 0:  # half of them will do
        followups = (("E quantos golos marcou e sofreu?", goals),)
        yield ask("conversa", f"{fact}/talk", TALK, position(season), club, followups, season=key)


def _moves(seasons: Sequence[Season], club: Club) -> Iterator[Question]:
    """As many seasons with the move as without it; the place is the reason."""
    # A team of the upper half goes down only off the field, and then its place is no reason.
    down = [s for s in seasons if s.outcome == "despromovido" and 2 * s.position > s.teams]
    up = [s for s in seasons if s.outcome == "promovido"]
    same = [s for s in seasons if s.outcome == "manteve" and s.stage == "fase regular" and s.position > 2]
    for fact, wordings, moved, stayed in (
        ("relegated", RELEGATED, down, [s for s in same if s.tier < 3]),
        ("promoted", PROMOTED, up, [s for s in same if s.tier > 1]),
    ):
        step = max(len(stayed) // max(len(moved), 1), 1)
        for season, answer in [
            *((s, "Sim") for s in moved),
            *((s, "Não") for s in stayed[::step][: len(moved)]),
        ]:
            yield ask("sim-nao", f"seasons/{season.season}/{fact}", wordings,
                      f"{answer}, {position(season)[0].lower()}{position(season)[1:]}", club,
                      guessable=True, season=season.season)  # fmt: skip


def _compare(pair: tuple[Season, Season], by_place: bool, club: Club) -> Iterator[Question]:
    first, second = pair
    keys: dict[str, Any] = {"first": first.season, "second": second.season}
    fact = f"seasons/{first.season}+{second.season}"
    if by_place and first.position != second.position:
        best, other = sorted(pair, key=lambda season: season.position)
        answer = f"Em {best.season}: {ordinal(best.position)} lugar contra {ordinal(other.position)}."
        yield ask("comparacao", f"{fact}/place", BETTER_PLACE, answer, club, guessable=True, **keys)
    if not by_place and first.goals_for != second.goals_for:
        best, other = sorted(pair, key=lambda season: -season.goals_for)
        answer = f"Em {best.season}: {counted(best.goals_for, 'golo')} contra {other.goals_for}."
        yield ask("comparacao", f"{fact}/goals", MORE_GOALS, answer, club, guessable=True, **keys)
