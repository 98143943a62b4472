"""Read the fact tables into typed, frozen records; the error names a table that is missing or malformed."""

import csv
import re
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ..errors import UserError, reason

# What a cell says that is either true or not, in any case.
MARKS = {"sim": True, "não": False, "nao": False}
# A record's fields are columns of its table, and whatever else the table has is left alone. A cell may be
# empty where its field has a default.


@dataclass(frozen=True, kw_only=True)
class Season:
    """One season in the league: where the club came and with what figures."""

    season: str
    division: str
    tier: int
    series: str = ""
    stage: str
    position: int
    teams: int
    played: int
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int
    points: int | None = None
    points_per_win: int
    outcome: str = ""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of a season that had several."""

    season: str
    division: str
    stage: str
    position: int | None = None
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int


@dataclass(frozen=True, kw_only=True)
class Cup:
    """One cup in one season, as far as the club got."""

    season: str
    competition: str
    matches: int
    wins: int
    draws: int
    losses: int
    last_round: str
    last_opponent: str = ""
    eliminated: bool = False


@dataclass(frozen=True, kw_only=True)
class Honour:
    """A title or a final; only the `verified` are taught."""

    competition: str
    season: str
    kind: str
    verified: bool = False
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class ClubFact:
    """Something about the club itself; only the `verified` are taught."""

    key: str
    value_pt: str
    verified: bool = False


@dataclass(frozen=True, kw_only=True)
class Coach:
    """One coach of one season."""

    season: str
    coach: str
    nationality: str = ""


@dataclass(frozen=True, kw_only=True)
class President:
    """One president; `end_year` is None while in office."""

    order: int
    start_year: int
    end_year: int | None = None
    president: str


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """One opponent over all seasons."""

    opponent: str
    display_pt: str
    matches: int
    first_season: str


@dataclass(frozen=True, kw_only=True)
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


def read_tables(folder: Path) -> Tables:
    """The eight tables in `folder`; raises `UserError` naming file, line and column."""
    records = {table.name: get_args(table.type)[0] for table in fields(Tables)}
    return Tables(**{name: _read(folder / f"{name}.csv", record) for name, record in records.items()})


def _read(path: Path, record: Any) -> tuple[Any, ...]:
    columns = fields(record)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column.name for column in columns if column.name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: falta a coluna «{missing[0]}»")
            return tuple(
                record(**{c.name: _cell(path, reader.line_num, c, row[c.name]) for c in columns})
                for row in reader
            )
    except FileNotFoundError:
        raise UserError(f"não encontro a tabela de factos {path}") from None
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: não é texto UTF-8 (byte {error.start})") from None


def _cell(path: Path, line: int, column: "Field[Any]", text: str | None) -> Any:
    text = (text or "").strip()
    where = f"{path}, linha {line}, coluna «{column.name}»"
    if not text and column.default is not MISSING:
        return column.default
    if column.type is bool:
        if text.casefold() not in MARKS:
            raise UserError(f"{where}: «{text}» não é «sim» nem «não»")
        return MARKS[text.casefold()]
    if column.type is str:
        if not text:
            raise UserError(f"{where}: a célula está vazia")
        if column.name.endswith("season") and not re.fullmatch(r"\d{4}-\d\d", text):
            raise UserError(f"{where}: «{text}» não é uma época como 1994-95")
        return text
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{where}: «{text}» não é um número") from None
