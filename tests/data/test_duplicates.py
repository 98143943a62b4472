"""Rows that say the same are one; whatever a reader would miss makes two, and alike rows are one group."""

import random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farense_qlora.data.duplicates import alike_groups, asked_key, row_key
from farense_qlora.data.rows import Row, parse_row

LONG = (
    "Na época de 1989-90 o Farense terminou em primeiro lugar da Zona Sul da II Divisão, subiu à I Divisão e "
    "foi nesse mesmo ano à final da Taça de Portugal, que perdeu, no segundo jogo, com o Estrela da Amadora."
)


def talk(question: str, answer: str, system: str = "") -> Row:
    said = [("system", system)] if system else []
    said += [("user", question), ("assistant", answer)]
    return Row(tuple({"role": role, "content": content} for role, content in said))


def grouped(*rows: Row) -> bool:
    return len(set(alike_groups(rows).tolist())) == 1


@pytest.mark.parametrize(
    "one, other",
    [
        ("Quem treinou?", "Quem  treinou?\n"),
        ("Foi Paco Fortes.", "Foi Paco Fortes"),
        ("Disse «sim» e “não”", 'Disse «sim» e "não"'),
        ("cafe\u0301", "caf\u00e9"),
    ],
)
def test_what_nobody_would_miss_makes_no_difference(one: str, other: str) -> None:
    assert row_key(talk("Quem?", one)) == row_key(talk("Quem?", other))
    assert row_key(talk(one, "Sim.")) == row_key(talk(other, "Sim."))


@pytest.mark.parametrize(
    "one, other",
    [
        ("a < b", "a > b"),
        ("a == b", "a != b"),
        ("a=b", "a==b"),
        ("a + b", "a - b"),
        ("-5", "5"),
        ("x²", "x2"),
        ("NATO", "nato"),
        ("Polish", "polish"),
        ("Sim?", "Sim!"),
        ("Sim?", "Sim."),
        (LONG, LONG.replace("primeiro", "segundo")),
        (LONG, LONG.replace("1989-90", "1988-89")),
        ("f(x)", "f[x]"),
        ("n!", "n"),
        ("esta", "está"),
    ],
)
def test_an_operator_a_capital_a_mark_or_a_word_makes_another_row(one: str, other: str) -> None:
    assert row_key(talk("Quem?", one)) != row_key(talk("Quem?", other))
    assert row_key(talk(one, "Sim.")) != row_key(talk(other, "Sim."))
    assert row_key(Row(text=one)) != row_key(Row(text=other))


def test_the_context_belongs_to_a_row() -> None:
    question = {"messages": [{"role": "user", "content": "E?"}, {"role": "assistant", "content": "Sim."}]}
    earlier = [{"role": "user", "content": "Olá"}, {"role": "assistant", "content": "Bom dia."}]
    thought = {"role": "assistant", "content": "Sim.", "reasoning_content": "Ora."}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    others = [
        {**question, "system": "Sê breve."},
        {"messages": [*earlier, *question["messages"]]},
        {"messages": [question["messages"][0], thought]},
        {**question, "tools": [tool]},
    ]
    keys = {row_key(parse_row(row)) for row in (question, *others)}
    assert len(keys) == 5


def test_one_question_with_two_answers_asks_the_same() -> None:
    assert asked_key(talk("Quem?", "Ele.")) == asked_key(talk("Quem?", "Ela."))
    assert asked_key(talk("Quem?", "Ele.")) != asked_key(talk("Quem?", "Ele.", system="Sê breve."))


@pytest.mark.parametrize(
    "other",
    [
        talk("CONTE A ÉPOCA", LONG.upper()),
        talk("Conte a época, por favor.", LONG),
        talk("Conte a época.", "Ficou em primeiro e subiu."),
        talk("Conte a época.", LONG.replace("subiu à", "e subiu à")),
    ],
    ids=["capitals", "another question", "another answer", "another word"],
)
def test_alike_rows_are_of_one_group(other: Row) -> None:
    assert grouped(talk("Conte a época.", LONG), other)


@pytest.mark.parametrize(
    "other",
    [
        Row(text="Outra coisa."),
        talk("E a época?", LONG.replace("1989-90", "1988-89")),
        talk("E a época?", LONG.replace("Estrela", "Olhanense")),
    ],
    ids=["something else", "another number", "another name"],
)
def test_templated_rows_about_other_things_are_not(other: Row) -> None:
    assert not grouped(talk("Conte a época.", LONG), other)


def test_groups_join_through_a_third() -> None:
    words = LONG.lower().split()
    chain = [Row(text=" ".join(words[: len(words) - 2 * k])) for k in range(4)]
    assert grouped(*chain)


def test_a_text_of_a_million_letters_is_quick() -> None:
    start = process_time()
    assert grouped(Row(text=LONG * 5000), Row(text=LONG.upper() * 5000))
    assert process_time() - start < 5


@given(st.lists(st.text("ab \n.?1", min_size=1, max_size=12), min_size=1, max_size=20))
def test_rows_that_say_the_same_are_of_one_group(texts: list[str]) -> None:
    rows = [Row((), text) for text in texts]
    groups = alike_groups(rows)
    for row, group in zip(rows, groups, strict=True):
        same = [other for other, theirs in zip(rows, groups, strict=True) if theirs == group]
        assert row in same
        assert all(row_key(other) != row_key(row) for other in rows if other not in same)


def test_the_work_grows_with_the_rows_and_not_with_their_square() -> None:
    """Templates without a number or a name are the hard case: every row looks like every other."""
    words = [
        " ".join(random.Random(i).choices(["golo", "passe", "remate", "defesa", "cruzamento"], k=6))
        for i in range(4000)
    ]

    def seconds(count: int) -> float:
        rows = [talk(f"diga lá o que é isto: {words[i]}", f"é {words[i]} e {i}") for i in range(count)]
        start = process_time()
        alike_groups(rows)
        return process_time() - start

    seconds(100)
    assert seconds(4000) < 16 * seconds(500)
