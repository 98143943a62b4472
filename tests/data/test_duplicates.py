"""Rows that say the same twice are found by line, and ours are not among them."""

from pathlib import Path

from farense_qlora.config import HOME
from farense_qlora.data.duplicates import duplicates
from farense_qlora.data.rows import Row, iterate_rows

LONG = "O Farense terminou o campeonato em 5.º lugar, com 14 vitórias e 10 empates, e foi à Europa."


def row(question: str, answer: str) -> Row:
    return Row(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def test_repetitions_are_found_whatever_their_case_and_punctuation() -> None:
    train = [
        (1, row("Foi?", "Sim, foi.")),
        (2, row("Quando?", "Em 1910.")),
        (4, row("foi", "SIM: foi")),
        (5, row("Conta-me da época de 1994-95.", LONG)),
        (6, row("Conta-me da época de 1994-95.", LONG + " Sim.")),
        (7, row("Conta-me da época de 1995-96.", LONG)),  # another number: another fact
    ]
    found = duplicates(train, [(9, row("Quando?", "em 1910")), (10, row("Quando?", "Em 1911."))])
    assert found.exact == ((1, 4),)
    assert found.near == ((5, 6),)
    assert found.overlap == ((2, 9),)


def test_bare_text_and_rows_of_a_letter_are_compared_too() -> None:
    rows = [(1, Row(text="a")), (2, Row(text="b")), (3, Row(text="A!")), (4, Row(text="?"))]
    assert duplicates(rows).exact == ((1, 3),)


def test_our_own_data_have_none_across_the_split_and_none_that_are_equal() -> None:
    train, val = (Path(HOME / "data" / f"{name}_data.jsonl") for name in ("train", "val"))
    found = duplicates(iterate_rows(train), iterate_rows(val))
    assert (found.exact, found.overlap) == ((), ()) and len(found.near) < 10
