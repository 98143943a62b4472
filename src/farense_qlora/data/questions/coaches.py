"""Coaches by season; their order inside a season is not known, so it is not asked."""

from collections import defaultdict
from collections.abc import Iterator

from ..facts import Tables
from ..language import Club, capital, listed, sentence, with_article
from .form import Question, Wordings, ask

WHO = Wordings(
    (
        "Quem treinou {o} na época de {season}?",
        "Quem esteve no banco {do} em {season}?",
        "Que treinador teve {o} em {season}?",
        "Diz-me quem orientou {o} na época de {season}.",
    ),
    ("Em {season}, a equipa {do} foi dirigida por quem?", "Quem comandou {o} na temporada de {season}?"),
)
WHEN = Wordings(
    (
        "Em que época treinou {coach} {o}?",
        "Quando foi {coach} treinador {do}?",
        "Em que época esteve {coach} no banco {do}?",
        "Diz-me a época em que {coach} orientou {o}.",
    ),
    ("{coach} comandou {o} em que temporada?", "A passagem de {coach} pelo banco {do} foi em que altura?"),
)
FROM = Wordings(
    (
        "De que país era {coach}, treinador {do}?",
        "De que país vinha {coach}, que treinou {o}?",
        "{coach}, treinador {do}, era de onde?",
        "Diz-me de que país era {coach}, que orientou {o}.",
    ),
    ("{coach} comandou {o} vindo de que nação?",),
)
DID = Wordings(
    (
        "{coach} treinou {o} na época de {season}?",
        "É verdade que {coach} orientou {o} em {season}?",
        "Em {season}, o treinador {do} foi {coach}?",
        "{coach} esteve no banco {do} em {season}?",
    ),
    ("{coach} comandou {o} na temporada de {season}?",),
)
TALK = Wordings(
    (
        "Queria saber dos treinadores {do}. Quem havia em {season}?",
        "Vamos ao banco {do} em {season}: quem treinava?",
        "Sobre o treinador {do} em {season}: quem era?",
        "Estou a ver a equipa {do} de {season}. Quem a treinou?",
    ),
    ("Tenho uma dúvida sobre o banco {do} na temporada de {season}: quem mandava?",),
)


def questions(tables: Tables, club: Club) -> Iterator[Question]:
    """Every question about the coaches in `tables`."""
    by_season: dict[str, list[str]] = defaultdict(list)
    by_coach: dict[str, list[str]] = defaultdict(list)
    country = {}
    for row in tables.coaches:
        by_season[row.season].append(row.coach)
        by_coach[row.coach].append(row.season)
        country[row.coach] = row.nationality
    known = list(by_season.items())
    for before, (season, coaches), after in zip(
        [known[-1], *known], known, [*known[1:], known[0]], strict=False
    ):
        if len(coaches) < 3:
            stayed = set(coaches) <= {*before[1], *after[1]}
            yield ask("facto", f"coaches/{season}/who", WHO, sentence(listed(coaches)), club,
                      guessable=stayed, season=season)  # fmt: skip
    for coach, seasons in by_coach.items():
        if len(seasons) == 1 and len(by_season[seasons[0]]) > 2:
            yield ask("facto", f"coaches/{coach}/when", WHEN, f"Em {seasons[0]}.", club, coach=coach)
        if country[coach] not in ("", "Portugal"):
            origin = capital(with_article(country[coach], "de"))
            yield ask("facto", f"coaches/{coach}/from", FROM, f"{origin}.", club, guessable=True, coach=coach)
    alone = {season: coaches[0] for season, coaches in by_season.items() if len(coaches) == 1}
    yield from _did(alone, club)
    for season, coach in alone.items():
        if country[coach] not in ("", "Portugal"):
            followups = (("E de que país era?", f"{capital(with_article(country[coach], 'de'))}."),)
            yield ask(
                "conversa", f"coaches/{season}/talk", TALK, sentence(coach), club, followups, season=season
            )


def _did(alone: dict[str, str], club: Club) -> Iterator[Question]:
    """Yes and no in turn: no puts the coach of another season in the question."""
    seasons = list(alone.items())
    for number, (season, coach) in enumerate(seasons):
        other = seasons[(number + 5) % len(seasons)][1]
        if number % 4 == 0:
            yield ask("sim-nao", f"coaches/{season}/yes", DID, f"Sim, o treinador foi {coach}.", club,
                      guessable=True, season=season, coach=coach)  # fmt: skip
        elif number % 4 == 2 and other != coach:
            yield ask("sim-nao", f"coaches/{season}/no", DID, f"Não, o treinador foi {coach}.", club,
                      guessable=True, season=season, coach=other)  # fmt: skip
