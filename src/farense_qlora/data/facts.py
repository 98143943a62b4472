"""Read the fact tables into typed, frozen records; the error names a table that is missing or malformed."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError

from ..errors import UserError, reason

# What a cell says that is either true or not, in any case.
MARKS = {"sim": True, "não": False, "nao": False}
Mark = Annotated[bool, BeforeValidator(lambda cell: MARKS.get(str(cell).casefold(), cell)), Strict()]
SeasonName = Annotated[str, Field(pattern=r"^\d{4}-\d\d$")]


class Record(BaseModel):
    """A row of a table: its fields are columns, and whatever else the table has is left alone. A cell may be
    empty where its field has a default."""

    model_config = ConfigDict(frozen=True)


class Season(Record):
    """One season in the league: where the club came and with what figures."""

    season: SeasonName
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


class Phase(Record):
    """One phase of a season that had several."""

    season: SeasonName
    division: str
    stage: str
    position: int | None = None
    wins: int
    draws: int
    losses: int
    goals_for: int
    goals_against: int


class Cup(Record):
    """One cup in one season, as far as the club got."""

    season: SeasonName
    competition: str
    matches: int
    wins: int
    draws: int
    losses: int
    last_round: str
    last_opponent: str = ""
    eliminated: Mark = False


class Honour(Record):
    """A title or a final; only the `verified` are taught."""

    competition: str
    season: SeasonName
    kind: str
    verified: Mark = False
    notes: str = ""


class ClubFact(Record):
    """Something about the club itself; only the `verified` are taught."""

    key: str
    value_pt: str
    verified: Mark = False


class Coach(Record):
    """One coach of one season."""

    season: SeasonName
    coach: str
    nationality: str = ""


class President(Record):
    """One president; `end_year` is None while in office."""

    order: int
    start_year: int
    end_year: int | None = None
    president: str


class Opponent(Record):
    """One opponent over all seasons."""

    opponent: str
    display_pt: str
    matches: int
    first_season: SeasonName


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


def _read(path: Path, record: type[Record]) -> tuple[Any, ...]:
    columns = record.model_fields
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: falta a coluna «{missing[0]}»")
            for row in reader:
                cells = {name: (row[name] or "").strip() for name in columns}
                rows.append(record(**{name: cell for name, cell in cells.items() if cell}))
    except ValidationError as error:
        first = error.errors()[0]
        cell, where = first["input"], f"{path}, linha {reader.line_num}, coluna «{first['loc'][0]}»"
        wrong = {  # by how pydantic's name for it begins
            "missing": UserError(f"{where}: a célula está vazia"),
            "bool": UserError(f"{where}: «{cell}» não é «sim» nem «não»"),
            "string": UserError(f"{where}: «{cell}» não é uma época como 1994-95"),
            "int": UserError(f"{where}: «{cell}» não é um número"),
        }
        raise wrong[first["type"].partition("_")[0]] from None
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: não é texto UTF-8 (byte {error.start})") from None
    return tuple(rows)
