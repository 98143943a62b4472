"""The fact tables: what they give, and what is said of one that is missing or broken."""

from pathlib import Path

import pytest

from farense_qlora.data.facts import read_tables
from farense_qlora.errors import UserError

FACTS = Path(__file__).parents[2] / "data" / "facts"


def test_reads_all_eight_tables_typed() -> None:
    tables = read_tables(FACTS)
    season = next(season for season in tables.seasons if season.season == "1994-95")
    assert (season.division, season.position, season.points) == ("I Divisão", 5, 37)
    sizes = [len(rows) for rows in vars(tables).values()]
    assert sizes == [88, 23, 72, 64, 90, 99, 48, 226]


def test_an_empty_number_is_none_and_a_mark_is_a_boolean() -> None:
    tables = read_tables(FACTS)
    assert tables.presidents[-1].end_year is None
    assert next(season for season in tables.seasons if season.season == "1941-42").points is None
    assert {honour.verified for honour in tables.honours} == {True, False}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for table in FACTS.glob("*.csv"):
        (tmp_path / table.name).write_bytes(table.read_bytes())
    return tmp_path


def test_names_the_missing_table(copy: Path) -> None:
    (copy / "cups.csv").unlink()
    with pytest.raises(UserError, match=r"não consigo ler .*cups\.csv: não existe"):
        read_tables(copy)


def test_names_file_line_and_column_of_a_bad_number(copy: Path) -> None:
    text = (copy / "presidents.csv").read_text(encoding="utf-8").replace("\n2,1917,", "\n2,mil,", 1)
    (copy / "presidents.csv").write_text(text, encoding="utf-8")
    with pytest.raises(
        UserError, match=r"presidents\.csv, linha 3, coluna «start_year»: «mil» não é um número"
    ):
        read_tables(copy)


def test_a_mark_is_read_in_any_case_and_another_word_is_refused(copy: Path) -> None:
    text = (copy / "honours.csv").read_text(encoding="utf-8")
    (copy / "honours.csv").write_text(
        text.replace(",sim,", ",Sim,").replace(",nao,", ",Não,"), encoding="utf-8"
    )
    assert read_tables(copy).honours == read_tables(FACTS).honours
    (copy / "honours.csv").write_text(text.replace(",sim,", ",talvez,", 1), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"honours\.csv, linha 2, coluna «verified»: «talvez» não é «sim» nem «não»"
    ):
        read_tables(copy)


def test_names_the_missing_column(copy: Path) -> None:
    (copy / "coaches.csv").write_text("season,coach\n1994-95,Paco Fortes\n", encoding="utf-8")
    with pytest.raises(UserError, match="falta a coluna «nationality»"):
        read_tables(copy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Paco Fortes", "", r"coaches\.csv, linha \d+, coluna «coach»: a célula está vazia"),
        ("1939-40,", "1939/40,",
         r"coaches\.csv, linha 2, coluna «season»: «1939/40» não é uma época como 1994-95"),
    ],
)  # fmt: skip
def test_names_the_cell_that_is_empty_or_no_season(copy: Path, old: str, new: str, message: str) -> None:
    text = (copy / "coaches.csv").read_text(encoding="utf-8")
    assert old in text
    (copy / "coaches.csv").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_tables(copy)


def test_a_table_that_excel_saved_in_utf_8_is_read(copy: Path) -> None:
    text = (copy / "coaches.csv").read_text(encoding="utf-8")
    (copy / "coaches.csv").write_text(text, encoding="utf-8-sig")
    assert read_tables(copy) == read_tables(FACTS)
