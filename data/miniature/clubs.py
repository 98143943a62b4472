"""Invent clubs: random tables of the real schema, consistent in themselves, in which no fact is true.

A model pre-trained on questions about thousands of them learns how questions are answered, and nothing about
any real club. Equal seeds give equal clubs.
"""

import random
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from farense_qlora.data.facts import ClubFact, Coach, Cup, Honour, Opponent, Phase, President, Season, Tables
from farense_qlora.data.language import Club, listed, season_of

names = SimpleNamespace(**tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8")))
YEARS = range(1934, 2025)  # in which a season begins
TIERS = {
    1: ("I Divisão", "I Divisão", "I Liga"),
    2: ("II Divisão", "II Divisão", "II Liga", "Campeonato da II Liga"),
    3: ("III Divisão", "II Divisão B", "Campeonato de Portugal", "II Divisão"),
}
SERIES = ("Zona Sul", "Zona Sul", "Zona Norte", "Zona Centro", "Zona D / Série 8", "Série F", "Série H",
          "Zona C", "Grupo D / Série 13", "Série E", "Série Algarve")  # fmt: skip
ROUNDS = ("1.ª eliminatória", "2.ª eliminatória", "3.ª eliminatória", "4.ª eliminatória", "5.ª eliminatória",
          "32 avos de final", "16 avos de final", "oitavos de final", "quartos de final", "quartos de final",
          "meias-finais", "final")  # fmt: skip
STAGES = ("fase final", "fase final (calculada)", "fase de subida", "1.ª fase (calculada)",
          "liguilha I/II Divisão (calculada)")  # fmt: skip
HIGHER = ("I Divisão", "I Liga", "II Divisão", "II Liga", "III Divisão")
MONTHS = ("janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro",
          "novembro", "dezembro")  # fmt: skip


def invented(seed: int) -> tuple[Tables, Club]:
    """The tables and the name of invented club number `seed`."""
    rng = random.Random(seed)
    club, place = _club(rng)
    opponents = tuple(_opponents(rng))
    seasons = tuple(_seasons(rng))
    coaches = tuple(_coaches(rng, seasons))
    presidents = tuple(_presidents(rng))
    tables = Tables(
        seasons=seasons,
        phases=tuple(_phases(rng, seasons)),
        cups=tuple(_cups(rng, opponents)),
        honours=tuple(_honours(rng, seasons)),
        club=tuple(_facts(rng, club, place, coaches, presidents[-1], opponents)),
        coaches=coaches,
        presidents=presidents,
        opponents=opponents,
    )
    return tables, club


def _club(rng: random.Random) -> tuple[Club, str]:
    """A club, and the place that it has its name from: "Alvorense", of "Vila Alvora"."""
    shape, gender = rng.choice(names.club_shapes)
    place = _place(rng)
    inhabitant = place.split()[-1].rstrip("aeioãs").removesuffix("ens") + "ense"
    return Club(shape.format(place=place, ense=inhabitant), gender), place


def _place(rng: random.Random) -> str:
    return rng.choice(names.place_before) + rng.choice(names.place_begin) + rng.choice(names.place_end)


def _person(rng: random.Random, surnames: int = 1) -> str:
    if surnames == 1 and rng.random() < 0.1:
        return rng.choice(names.one_word)
    middle = rng.sample(names.last, surnames)
    if surnames > 1 and rng.random() < 0.3:
        middle.insert(-1, rng.choice(("da", "de", "e")))
    first = rng.sample(names.first, 1 + (surnames > 1 and rng.random() < 0.5))
    return " ".join([*first, *middle])


def _opponents(rng: random.Random) -> Iterator[Opponent]:
    chosen = rng.sample(names.real_opponents, 28)
    while len(chosen) < 48:
        club, _ = _club(rng)
        if club.name not in chosen:
            chosen.append(club.name)
    for name in chosen:
        first = season_of(min(rng.sample(YEARS, 2)))
        yield Opponent(opponent=name, display_pt=name, matches=rng.randint(1, 80), first_season=first)


def _results(rng: random.Random, played: int) -> dict[str, Any]:
    """How `played` games ended."""
    strength = rng.uniform(0.15, 0.7)
    wins = min(played, max(0, round(rng.gauss(strength, 0.05) * played)))
    draws = rng.randint(0, round((played - wins) * 0.6))
    losses = played - wins - draws
    return {
        "wins": wins,
        "draws": draws,
        "losses": losses,
        "goals_for": wins + draws // 2 + rng.randint(0, played),
        "goals_against": losses + draws // 2 + rng.randint(0, played),
    }


def _seasons(rng: random.Random) -> Iterator[Season]:
    tier = rng.randint(1, 3)
    district = rng.choice(names.districts)
    for year in YEARS:
        if year in (1946, 1947):
            continue
        teams = rng.choice((10, 12, 14, 16, 18, 18, 20))
        played = 2 * (teams - 1)
        results = _results(rng, played)
        move = rng.random()
        if tier > 1 and move < 0.22:
            position, outcome = rng.randint(1, 2), "promovido"
        elif tier < 4 and move > 0.8:
            position, outcome = rng.randint(teams - 3, teams), "despromovido"
        else:
            position, outcome = rng.randint(1, teams - 2), "manteve"
        district_division = f"AF {district} {rng.choice((1, 2))}.ª Divisão"
        division = rng.choice(TIERS[tier]) if tier < 4 else district_division
        promotion = tier == 3 and rng.random() < 0.1
        series = rng.choice(SERIES) if tier in (2, 3) and "Liga" not in division and not promotion else ""
        per_win = 2 if year < 1995 else 3
        yield Season(
            season=season_of(year),
            division=division,
            tier=tier,
            series=series,
            stage="fase de subida" if promotion else "fase regular",
            position=position,
            teams=teams,
            played=played,
            points=per_win * results["wins"] + results["draws"],
            points_per_win=per_win,
            outcome=outcome,
            **results,
        )
        tier += {"promovido": -1, "despromovido": 1, "manteve": 0}[outcome]


def _phases(rng: random.Random, seasons: tuple[Season, ...]) -> Iterator[Phase]:
    for season in rng.sample(seasons, 24):
        played = rng.randint(1, 14)
        results = _results(rng, played)
        stage, teams = rng.choice(STAGES), rng.randint(3, 8)
        placed = "(" not in stage and rng.random() < 0.8
        yield Phase(
            season=season.season,
            division=season.division,
            stage=stage,
            position=rng.randint(1, teams) if placed else None,
            **results,
        )


def _cups(rng: random.Random, opponents: tuple[Opponent, ...]) -> Iterator[Cup]:
    for year in sorted(rng.sample(range(1938, YEARS.stop), 64)):
        yield _cup(rng, year, "Taça de Portugal", rng.choice(ROUNDS), rng.choice(opponents).opponent)
        if year > 2006 and rng.random() < 0.4:
            last_round = rng.choice(("1.ª fase", "2.ª fase", "1.ª eliminatória"))
            yield _cup(rng, year, "Taça da Liga", last_round, rng.choice(opponents).opponent)
    yield _cup(rng, rng.randint(1960, 2020), "Taça UEFA", "1.ª eliminatória", rng.choice(names.europeans))


def _cup(rng: random.Random, year: int, competition: str, last_round: str, opponent: str) -> Cup:
    losses = rng.choice((1, 1, 1, 2))
    matches = losses + rng.randint(0, 6)
    wins = rng.randint(0, matches - losses)
    for most in (9, 6):  # goals, which no question asks for: without these draws the clubs would be others
        rng.randint(0, most)
    return Cup(
        season=season_of(year),
        competition=competition,
        matches=matches,
        wins=wins,
        draws=matches - losses - wins,
        losses=losses,
        last_round=last_round,
        last_opponent=opponent,
        eliminated=True,
    )


def _honours(rng: random.Random, seasons: tuple[Season, ...]) -> Iterator[Honour]:
    def honour(competition: str, season: str, kind: str, notes: str = "") -> Honour:
        return Honour(competition=competition, season=season, kind=kind, verified=True, notes=notes)

    district = rng.choice(names.districts)
    regional = f"Campeonato d{'o' if district in ('Algarve', 'Porto') else 'e'} {district}"
    for year in rng.sample(range(1910, 1938), 5):
        yield honour(regional, season_of(year), "titulo_regional")
    kinds = ("titulo", "titulo", "subida", "subida", "descida", "final", "vencedor_serie", "both")
    for number, season in enumerate(rng.sample(seasons, 26)):
        kind = kinds[number] if number < len(kinds) else rng.choice(kinds)
        division = rng.choice(
            (*TIERS[1], *TIERS[2], *TIERS[3], f"AF {district} {rng.randint(1, 2)}.ª Divisão")
        )
        if kind == "final":
            yield honour(rng.choice((division, "Taça de Portugal", "Taça da Liga")), season.season, kind)
        elif kind == "vencedor_serie":
            series = rng.choice([name for name in SERIES if "/" not in name])
            yield honour(f"{division} - {series}", season.season, kind)
        elif kind == "descida":
            yield honour(division, season.season, kind)
        else:
            if kind != "titulo":
                yield honour(division, season.season, "subida", f"subida à {rng.choice(HIGHER)}")
            if kind != "subida":
                national = division.startswith("II") and rng.random() < 0.5
                title = f"{division} (campeonato nacional)" if national else division
                yield honour(title, season.season, "titulo")


def _coaches(rng: random.Random, seasons: tuple[Season, ...]) -> Iterator[Coach]:
    nations = {_person(rng): rng.choice(names.nations) for _ in range(45)}
    for season in rng.sample(seasons, 58):
        for coach in rng.sample(list(nations), rng.choice((1, 1, 1, 2, 2, 3, 3))):
            yield Coach(season=season.season, coach=coach, nationality=nations[coach])


def _presidents(rng: random.Random) -> Iterator[President]:
    year = rng.randint(1910, 1916)
    order = 0
    while year < 2018:
        order += 1
        end = min(year + rng.choice((0, 1, 1, 2, 2, 3, 4, 6)), 2018)
        yield President(order=order, start_year=year, end_year=end, president=_person(rng, rng.randint(1, 3)))
        year = end + (end == year) + (rng.random() < 0.1)
    yield President(order=order + 1, start_year=2018, president=_person(rng, 3))


def _facts(
    rng: random.Random, club: Club, place: str, coaches: tuple[Coach, ...], president: President,
    opponents: tuple[Opponent, ...],
) -> Iterator[ClubFact]:  # fmt: skip
    """The club's table: the keys are those of the real one, the people and years are others."""

    def day(first: int = 1905, last: int = 2020) -> str:
        return f"{rng.randint(1, 28)} de {rng.choice(MONTHS)} de {rng.randint(first, last)}"

    def score() -> str:
        return f"{rng.randint(0, 4)}-{rng.randint(0, 4)}"

    def opponent() -> str:
        return rng.choice(opponents).opponent

    def season() -> str:
        return season_of(rng.choice(YEARS))

    def thousands() -> str:
        return f"{rng.randint(2, 40)} {rng.randrange(0, 1000, 500):03d} espectadores"

    def listed_seasons(most: int) -> str:
        years = sorted(rng.sample(YEARS, rng.randint(2, most)))
        return f"{len(years)}: {listed([season_of(year) for year in years])}"

    def span() -> str:
        first, last = sorted(rng.sample(YEARS, 2))
        return f"{season_of(first)} a {season_of(last)}"

    ground = f"{rng.choice(names.grounds)} {_place(rng)}"
    end = rng.randint(1950, 2024)
    final, cup_opponent = f"taca_portugal_final_{end}", opponent()
    first_coach, star = (row.coach for row in rng.sample(coaches, 2))
    coach_key, star_key = ("_".join(name.lower().split()) for name in (first_coach, star))
    top, european = rng.randint(2, 12), rng.choice(names.europeans)
    year, stay = rng.randint(1905, 1990), rng.randint(1, 20)
    debt_year, end_month = rng.randint(1960, 2015), rng.choice(MONTHS)
    scorer, goals = _person(rng), rng.randint(12, 40)
    district, level = rng.choice(names.districts), rng.randint(1, 2)
    faro, faro_end = f"Clube Desportivo de {_place(rng)}", rng.randint(1947, 1955)
    values = {
        "nome_oficial": f"{rng.choice(names.official)} {club.name}",
        "data_fundacao": day(1900, 1935),
        "nomes_iniciais": f"{place} Futebol; Sporting de {place}",
        "cidade": place,
        "regiao": rng.choice(names.regions),
        "alcunha": f"{rng.choice(names.plurals)} de {place}",
        "mascote": rng.choice(names.animals),
        "cores": listed(rng.sample(names.colours, 2)),
        "filial": f"filial n.º {rng.randint(2, 90)} do {rng.choice(names.mothers)}, desde {year}",
        "principal_rival": opponent(),
        "fundador_capitao": _person(rng, rng.randint(1, 3)),
        "primeiro_campo": f"{rng.choice(names.squares)} de {_place(rng)}, em {place}",
        "estadio": ground,
        "estadio_inauguracao": day(1915, 2005),
        "estadio_nomes_antigos": f"{_place(rng)} Stadium; Campo de {_place(rng)}",
        "estadio_promotor": _person(rng),
        "estadio_capacidade": thousands(),
        "estadio_recorde_assistencia": f"{thousands()}, em {day(1940)}, {club.name}-{opponent()} ({score()})",
        "estadio_alternativo": f"Estádio {_place(rng)}: casa do clube entre {year} e {year + stay}",
        "primeira_epoca_I_divisao": season(),
        "primeira_subida_I_divisao": season(),
        "treinadores_primeira_subida": f"{_person(rng)}, substituído por {_person(rng)} nas últimas jornadas",
        "primeiro_jogo_I_divisao": f"{day(1935)}: {club.name} {score()} {opponent()}, em casa",
        "presencas_I_divisao": f"{rng.randint(2, 60)} épocas até {season()}",
        "periodo_mais_longo_I_divisao": f"{rng.randint(2, 30)} épocas seguidas, de {span()}",
        "melhor_classificacao": f"{top}.º lugar na I Divisão, em {season()}",
        "unica_vitoria_estadio_da_luz": f"1-0 ao Benfica, em {day(1940)}, golo de {_person(rng)}",
        "unica_vitoria_alvalade": f"1-0 ao Sporting, em {day(1940)}, golo de {_person(rng)}",
        "taca_portugal_melhor": f"finalista vencido em {season()}",
        f"{final}_jogo1": f"{day()}: {cup_opponent} {score()} {club.name}",
        f"{final}_finalissima": f"{day()}: {cup_opponent} {rng.randint(1, 4)}-0 {club.name}",
        f"{final}_adversario": cup_opponent,
        f"{final}_treinadores": f"{_person(rng)} ({club.name}) e {_person(rng)} ({cup_opponent})",
        f"{final}_golo_farense": _person(rng),
        f"{final}_golos_finalissima": f"{_person(rng)} e {_person(rng)}",
        "europa_participacao": f"Taça UEFA de {season()}, 1.ª eliminatória",
        "europa_adversario": european,
        "europa_1_mao": f"{day(1960)} ({place}): {club.name} {score()} {european}",
        "europa_2_mao": f"{day(1960)} (fora): {european} {score()} {club.name}",
        "titulos_II_divisao": listed_seasons(4),
        "titulos_regionais_algarve": listed_seasons(7),
        "titulos_distritais_AF_algarve": f"2.ª Divisão em {season()} e 1.ª Divisão em {season()}",
        f"melhor_marcador_{end - 1}_{end % 100:02d}":
            f"{scorer}, melhor marcador da I Divisão com {goals} golos",
        f"{star_key}_epocas": f"{span()} e {span()}",
        f"{star_key}_saida": f"transferiu-se para o {opponent()} em {rng.randint(1950, 2020)}",
        f"{coach_key}_nome_completo": _person(rng, 2),
        f"{coach_key}_nascimento": f"{day(1920, 1985)}, {_place(rng)}",
        f"{coach_key}_alcunha": rng.choice(names.nicknames),
        f"{coach_key}_jogador": f"jogador do clube de {span()}",
        "presidente_atual": f"{president.president}, desde {president.start_year}",
        "clube_desportivo_de_faro": f"em 1946-48 o clube integrou o {faro}, extinto em {faro_end}",
        "fim_futebol_senior_2005": f"em {end_month} de {debt_year} a equipa sénior deixou de competir",
        "regresso_2006": f"recomeço em {season()} na AF {district} {level}.ª Divisão (6.º escalão)",
    }  # fmt: skip
    return (ClubFact(key=key, value_pt=value, verified=True) for key, value in values.items())
