"""Read the fact tables into typed, frozen records; the error names a table that is missing or malformed."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ..errors import UserError

# What a cell says that is either true or not, in any case.
MARKS = {"sim": True, "não": False, "nao": False, "": False}
# The fields of each record are the columns of its table that the questions use. An empty number is None.


@dataclass(frozen=True)
class Season:
    """One season in the league: where Farense came and with what figures."""

    season: str
    division: str
    tier: int
    series: str
    stage: str
    position: int
    teams: int
    played: int
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int
    points: int | None
    points_per_win: int
    outcome: str


@dataclass(frozen=True)
class Phase:
    """One phase of a season that had several."""

    season: str
    division: str
    tier: int
    series: str
    stage: str
    position: int | None
    teams: int | None
    played: int
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int
    points: int | None


@dataclass(frozen=True)
class Cup:
    """One cup in one season, as far as Farense got."""

    season: str
    competition: str
    matches: int
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int
    last_round: str
    last_opponent: str
    last_results: str
    eliminated: bool


@dataclass(frozen=True)
class Honour:
    """A title or a final; only the `verified` are taught."""

    competition: str
    season: str
    result: str
    kind: str
    verified: bool
    notes: str


@dataclass(frozen=True)
class ClubFact:
    """Something about the club itself; only the `verified` are taught."""

    category: str
    key: str
    value_pt: str
    verified: bool


@dataclass(frozen=True)
class Coach:
    """One coach of one season."""

    season: str
    coach: str
    nationality: str
    coaches_in_season: int


@dataclass(frozen=True)
class President:
    """One president; `end_year` is None while in office."""

    order: int
    start_year: int
    end_year: int | None
    president: str


@dataclass(frozen=True)
class Opponent:
    """One opponent over all seasons."""

    opponent: str
    display_pt: str
    matches: int
    first_season: str
    last_season: str


@dataclass(frozen=True)
class Tables:
    """All that is known of a club; each field is the table of that name."""

    seasons: tuple[Season, ...]
    phases: tuple[Phase, ...]
    cups: tuple[Cup, ...]
    honours: tuple[Honour, ...]
    club: tuple[ClubFact, ...]
    coaches: tuple[Coach, ...]
    presidents: tuple[President, ...]
    opponents: tuple[Opponent, ...]


Record = TypeVar("Record")


def read_tables(folder: Path) -> Tables:
    """The eight tables in `folder`; raises `UserError` naming file, line and column."""

    def table(name: str, record: type[Record]) -> tuple[Record, ...]:
        return _read(folder / f"{name}.csv", record)

    return Tables(
        table("seasons", Season), table("phases", Phase), table("cups", Cup), table("honours", Honour),
        table("club", ClubFact), table("coaches", Coach), table("presidents", President),
        table("opponents", Opponent),
    )  # fmt: skip


def _read(path: Path, record: type[Record]) -> tuple[Record, ...]:
    types = get_type_hints(record)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in types if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}: falta a coluna «{missing[0]}»")
            return tuple(
                record(
                    **{name: _value(path, reader.line_num, name, row[name], types[name]) for name in types}
                )
                for row in reader
            )
    except FileNotFoundError:
        raise UserError(f"não encontro a tabela de factos {path}") from None
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: não é texto UTF-8 (byte {error.start})") from None


def _value(path: Path, line: int, column: str, text: str | None, wanted: Any) -> Any:
    text = (text or "").strip()
    if wanted is str:
        return text
    if wanted is bool:
        if text.casefold() not in MARKS:
            raise UserError(f"{path}, linha {line}, coluna «{column}»: «{text}» não é «sim» nem «não»")
        return MARKS[text.casefold()]
    if not text and wanted is not int:
        return None
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{path}, linha {line}, coluna «{column}»: «{text}» não é um número") from None
