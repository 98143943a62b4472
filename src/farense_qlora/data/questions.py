"""Turn fact tables into questions: the same wordings serve any club; equal tables give equal questions."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..config import ROOT
from ..errors import UserError
from .facts import Cup, Honour, President, Season, Tables
from .language import Club, competition, listed, opponent_name, record, with_article, without_brackets
from .wordings import UNANSWERABLE, Question, Wordings, read_templates

QUESTIONS = ROOT / "data" / "questions"
OFTEN = 20  # games against an opponent that is worth asking about
LATE = ("quartos de final", "meias-finais", "final")
TITLE = r"^(Dr\.|Prof\.|Maj\.|Cap\.|Eng\.º) "
NUMBERS = ("zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez")


def questions(tables: Tables, club: Club, folder: Path = QUESTIONS) -> list[Question]:
    """Every question that the eight `tables` of `club` answer, in the wordings of `folder`.

    Raises `UserError` naming the file and the entry that is missing or wrong.
    """
    if unknown := sorted({file.stem for file in folder.glob("*.toml")} - {*BUILDERS, UNANSWERABLE}):
        raise UserError(f"em {folder} não há a tabela «{unknown[0]}»; há {', '.join(BUILDERS)}")
    club = named(club, tables)
    asked: list[Question] = []
    for table, (build, names) in BUILDERS.items():
        file = folder / f"{table}.toml"
        asked += build(tables, Wordings(file, read_templates(file, names.split()), club))
    return asked


def named(club: Club, tables: Tables) -> Club:
    """`club` with the other names that its own table has for it."""
    values = {row.key: without_brackets(row.value_pt) for row in tables.club if row.verified}
    return replace(club, official=values.get("nome_oficial", ""), nickname=values.get("alcunha", ""))


def president_name(president: President) -> str:
    """The name without its academic or military title."""
    return re.sub(TITLE, "", president.president)


def _seasons(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Every season's place; the rest for the top division, which people ask about most."""
    ask = wordings.ask
    top = [season for season in tables.seasons if season.tier == 1]
    for season in tables.seasons:
        yield ask("position", season.season, guessable=True, **_place(season))
    for season in top:
        values = _place(season) | {"marcados": season.goals_for, "sofridos": season.goals_against}
        yield ask("goals", season.season, **values)
        if season.points is not None:
            yield ask("points", season.season, **values, pontos=season.points)
            yield ask("story", season.season, **values, pontos=season.points)
        if int(season.season[:4]) % 2 == 0:  # half of them will do
            yield ask("talk", season.season, **values)
    yield from _moves(tables.seasons, wordings)
    for number, pair in enumerate(pairwise(top)):
        first, second = reversed(pair) if number % 2 else pair
        places = number % 4 < 2
        name, part = ("better_place", "place") if places else ("more_goals", "goals")
        figure = attrgetter("position" if places else "goals_for")
        best, worst = sorted(pair, key=figure, reverse=not places)
        more, less = figure(best), figure(worst)
        if more != less:
            yield ask(name, f"{first.season}+{second.season}", part, guessable=True, uma=first.season,
                      outra=second.season, melhor=best.season, mais=more, menos=less)  # fmt: skip


def _moves(seasons: Sequence[Season], wordings: Wordings) -> Iterator[Question]:
    """As many seasons with the move as without it; the place is the reason."""
    # A team of the upper half goes down only off the field, and then its place is no reason.
    down = [s for s in seasons if s.outcome == "despromovido" and 2 * s.position > s.teams]
    up = [s for s in seasons if s.outcome == "promovido"]
    same = [s for s in seasons if s.outcome == "manteve" and s.stage == "fase regular" and s.position > 2]
    for name, moved, stayed in (
        ("relegated", down, [s for s in same if s.tier < 3]),
        ("promoted", up, [s for s in same if s.tier > 1]),
    ):
        for season, yes in _balanced(moved, stayed):
            yield wordings.ask(name, season.season, yes=yes, guessable=True, **_place(season))


def _balanced(so: Sequence[Any], others: Sequence[Any]) -> list[tuple[Any, bool]]:
    """What is `so`, with True; and with False, as many of the others, from all over their list."""
    step = max(len(others) // max(len(so), 1), 1)
    return [(one, True) for one in so] + [(one, False) for one in others[::step][: len(so)]]


def _place(season: Season) -> dict[str, Any]:
    """Where the team came, and where it played: "na I Divisão", "na Zona Sul da II Divisão"."""
    division = competition(season.division)
    group = season.series if season.stage == "fase regular" else season.stage
    if group:
        inside = "na sua série" if "/" in group else with_article(group, "em")
        where = f"{inside} {with_article(division, 'de')}"
    else:
        where = with_article(division, "em")
    return {"epoca": season.season, "lugar": season.position, "onde": where}


def _phases(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Finals, promotion rounds and play-offs: wins, draws and losses, and the place where it is known."""
    for phase in tables.phases:
        balance = record(phase.wins, phase.draws, phase.losses)
        if not balance:
            continue  # nothing was played
        name = phase.stage.removesuffix(" (calculada)")
        played = f"{name} {with_article(phase.division, 'de')}"
        if name.startswith("liguilha"):  # it names its own two divisions
            played = "liguilha entre a I e a II Divisão"
        values: dict[str, Any] = {"epoca": phase.season, "fase": played, "balanco": balance}
        yield wordings.ask("record", phase.season, f"{phase.stage}/record", **values)
        if phase.position is not None:
            yield wordings.ask("story", phase.season, f"{phase.stage}/story", **values, lugar=phase.position,
                               marcados=phase.goals_for, sofridos=phase.goals_against)  # fmt: skip


def _cups(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """How far the team went and who knocked it out."""
    names = {opponent.opponent: opponent.display_pt for opponent in tables.opponents}

    def ask(name: str, cup: Cup, **options: bool) -> Question:
        winner = opponent_name(names.get(cup.last_opponent, cup.last_opponent))
        return wordings.ask(
            name, cup.season, f"{cup.competition}/{name}", **options, epoca=cup.season, taca=cup.competition,
            ronda=cup.last_round, equipa=winner, balanco=record(cup.wins, cup.draws, cup.losses),
        )  # fmt: skip

    cups = [cup for cup in tables.cups if cup.eliminated and cup.last_opponent]
    for cup in cups:
        yield ask("out", cup)
        if cup.matches > 4 or cup.last_round in LATE:
            if cup.wins or cup.draws or cup.losses:
                yield ask("story", cup)
            yield ask("talk", cup)
    portugal = [cup for cup in cups if cup.competition == "Taça de Portugal"]
    far = [cup for cup in portugal if cup.last_round in LATE]
    short = [cup for cup in portugal if cup.last_round not in LATE]
    for cup, yes in _balanced(far, short):
        yield ask("far", cup, yes=yes, guessable=True)


def _honours(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Titles, promotions, relegations and lost finals, from the rows that a second source confirms."""
    honours = [honour for honour in tables.honours if honour.verified]
    for honour in honours:
        name = "titulo" if honour.kind == "titulo_regional" else honour.kind
        if name in wordings.templates:
            yield wordings.ask(name, honour.season, honour.kind, guessable=True, epoca=honour.season,
                               premio=_prize(honour))  # fmt: skip
    risen = {honour.season: _prize(honour) for honour in honours if honour.kind == "subida"}
    for honour in honours:
        if honour.kind == "titulo" and honour.season in risen:
            yield wordings.ask("story", honour.season, guessable=True, epoca=honour.season,
                               titulo=_prize(honour), subida=risen[honour.season])  # fmt: skip


def _prize(honour: Honour) -> str:
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


def _club(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """The club itself, from confirmed rows: a row is asked for when its key has wordings; then come the
    questions that put several rows together."""
    people = {"_".join(row.coach.lower().split()): row.coach for row in tables.coaches}
    told: dict[str, str] = {}  # the answers so far without their full stop, by key: {estadio}, {min_estadio}

    def together(name: str, subject: str, part: str = "", **keys: Any) -> Iterator[Question]:
        if all(need.replace("*", "") in told for need in wordings.templates[name].needs):
            yield wordings.ask(name, subject, part, guessable=True, **keys | told)

    for row in tables.club:
        key, keys = _general(row.key, people)
        template = wordings.templates.get(key)
        if not row.verified or not template or template.needs or not without_brackets(row.value_pt):
            continue
        found = template.value.fullmatch(row.value_pt)
        if not found:
            continue
        question = wordings.ask(key, row.key, "", guessable=True, **keys, **_parts(found.groups("")))
        answer, bare = question.answer.removesuffix("."), key.replace("*", "")
        told |= {bare: answer, f"min_{bare}": answer[:1].lower() + answer[1:]}
        yield question
        if f"{key}/talk" in wordings.templates:
            yield from together(f"{key}/talk", row.key, "talk", **keys)
    for name, template in wordings.templates.items():
        if template.needs and template.kind != "conversa":
            yield from together(name, name)


def _general(key: str, people: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The key with its year and person taken out: wordings do not depend on them."""
    keys: dict[str, Any] = {}
    for person, name in people.items():
        if key.startswith(f"{person}_"):
            key = key.replace(person, "*", 1)
            keys["nome"] = name
    if season := re.search(r"_(\d{4})_(\d\d)$", key):
        keys["epoca"] = f"{season[1]}-{season[2]}"
        key = key.replace(season[0], "_*")
    elif year := re.search(r"_(\d{4})(?=_|$)", key):
        number = int(year[1])
        keys |= {"ano": year[1], "epoca": f"{number - 1}-{number % 100:02d}"}
        key = key.replace(year[0], "_*")
    return key, keys


def _parts(groups: Sequence[str]) -> dict[str, Any]:
    """Each part of a value: {v0} as it is, {min0} in small letters, {lista0} as a list, {extenso0} a word."""
    values = {}
    for number, group in enumerate(groups):
        bare = without_brackets(group)
        values[f"v{number}"] = bare
        values[f"min{number}"] = bare.lower()
        values[f"lista{number}"] = listed([without_brackets(part) for part in group.split("; ")])
        small = group.isdecimal() and int(group) < len(NUMBERS)
        values[f"extenso{number}"] = NUMBERS[int(group)] if small else group
    return values


def _coaches(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Coaches by season; their order inside a season is not known, so it is not asked."""
    ask = wordings.ask
    by_season: dict[str, list[str]] = defaultdict(list)
    by_coach: dict[str, list[str]] = defaultdict(list)
    abroad = {}
    for row in tables.coaches:
        by_season[row.season].append(row.coach)
        by_coach[row.coach].append(row.season)
        abroad[row.coach] = row.nationality if row.nationality != "Portugal" else ""
    staffs = list(by_season.values())
    for number, (season, staff) in enumerate(by_season.items()):
        before, after = staffs[number - 1], staffs[(number + 1) % len(staffs)]
        if len(staff) < 3:
            stayed = set(staff) <= {*before, *after}
            yield ask("who", season, guessable=stayed, epoca=season, treinadores=listed(staff))
    for coach, seasons in by_coach.items():
        if len(seasons) == 1 and len(by_season[seasons[0]]) > 2:
            yield ask("when", coach, treinador=coach, epoca=seasons[0])
        if abroad[coach]:
            yield ask("from", coach, guessable=True, treinador=coach, pais=abroad[coach])
    alone = [(season, staff[0]) for season, staff in by_season.items() if len(staff) == 1]
    for number, (season, coach) in enumerate(alone):  # no and yes in turn: no asks for another season's coach
        other = alone[(number + 5) % len(alone)][1]
        if number % 4 == 0:
            yield ask("did", season, "yes", guessable=True, epoca=season, treinador=coach, verdadeiro=coach)
        elif number % 4 == 2 and other != coach:
            yield ask("did", season, "no", yes=False, guessable=True, epoca=season, treinador=other,
                      verdadeiro=coach)  # fmt: skip
    for season, coach in alone:
        if abroad[coach]:
            yield ask("talk", season, epoca=season, treinador=coach, pais=abroad[coach])


def _presidents(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Presidents by term: who held it, and when someone did."""
    ask = wordings.ask
    terms: dict[str, list[President]] = defaultdict(list)
    for president in tables.presidents:
        terms[president_name(president)].append(president)
        if president.end_year is not None:  # the club's own table has the president of today
            yield ask("who", str(president.order), mandato=_term(president), nome=president_name(president))
    for name, held in terms.items():
        if held[-1].start_year >= 1970:
            yield ask("when", name, nome=name, mandatos=listed([_term(term) for term in held]))
    years = [president.start_year for president in tables.presidents]
    for president in tables.presidents[::5]:
        year, end = president.start_year, president.end_year
        if years.count(year) == 1 and end is not None and end > year:
            yield ask("talk", str(president.order), ano=year, nome=president_name(president), fim=end)


def _term(president: President) -> str:
    """When `president` was in office, in words."""
    if president.end_year is None:
        return f"desde {president.start_year}"
    if president.end_year == president.start_year:
        return f"em {president.start_year}"
    return f"de {president.start_year} a {president.end_year}"


def _opponents(tables: Tables, wordings: Wordings) -> Iterator[Question]:
    """Opponents met often: how many games, since when, and which of two was met more."""
    ask = wordings.ask
    known = [opponent for opponent in tables.opponents if opponent.matches >= OFTEN]
    known.sort(key=lambda opponent: (-opponent.matches, opponent.opponent))
    for number, opponent in enumerate(known):
        values: dict[str, Any] = {"rival": opponent_name(opponent.display_pt), "jogos": opponent.matches}
        yield ask("matches", opponent.opponent, **values)
        if number % 4 == 0:
            yield ask("talk", opponent.opponent, **values, primeira=opponent.first_season)
    for number, (more, less) in enumerate(zip(known[::3], known[4::3], strict=False)):
        if more.matches > less.matches:
            best, other = opponent_name(more.display_pt), opponent_name(less.display_pt)
            first, second = (best, other) if number % 2 else (other, best)
            yield ask("more", f"{more.opponent}+{less.opponent}", guessable=True, um=first, outro=second,
                      melhor=best, mais=more.matches, menos=less.matches)  # fmt: skip


# What builds the questions of each table, and the entries of its file that it asks; of the club's, any.
Builder = Callable[[Tables, Wordings], Iterator[Question]]
BUILDERS: dict[str, tuple[Builder, str]] = {
    "seasons": (_seasons, "position points goals story talk relegated promoted better_place more_goals"),
    "phases": (_phases, "record story"),
    "cups": (_cups, "out far story talk"),
    "honours": (_honours, "titulo vencedor_serie subida descida final story"),
    "club": (_club, ""),
    "coaches": (_coaches, "who when from did talk"),
    "presidents": (_presidents, "who when talk"),
    "opponents": (_opponents, "matches more talk"),
}
