"""Carelessness is drawn by the seed, changes questions alone, and leaves what they ask to be read."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
from tiny import PEOPLE, write_rows

from farense_qlora.answers.normalise import normalise
from farense_qlora.config import Config
from farense_qlora.data.careless import (
    AFTER,
    BEFORE,
    OTHER_AFTER,
    OTHER_BEFORE,
    careless,
    careless_row,
    sometimes_careless,
)
from farense_qlora.data.load import CARELESS, VALIDATION, load_data
from farense_qlora.data.rows import Row
from farense_qlora.model.base import Base, load_base

ASKED = "Quantos golos marcou o Farense, também fora de casa, na época de 1989-90?"


def typed(count: int = 400, other: bool = False) -> list[str]:
    return [careless(ASKED, Random(seed), other) for seed in range(count)]


def test_every_way_is_met_and_equal_seeds_type_equally() -> None:
    made = typed()
    assert made == typed() and ASKED not in made
    share = {
        "small letters": sum(text == text.lower() for text in made),
        "no accents": sum("epoca" in text.lower() for text in made),
        "no question mark": sum("?" not in text for text in made),
        "greetings": sum(text.lower().startswith(tuple(map(str.lower, BEFORE))) for text in made),
        "abbreviations": sum("tb" in text for text in made),
        "doubled": sum("??" in text for text in made),
    }
    assert all(count > 0.04 * len(made) for count in share.values()), share


def test_seasons_and_the_words_of_a_question_can_still_be_read() -> None:
    for text in typed():
        assert "1989-90" in text
        words = set(normalise(text).split())
        assert len(words & {"golos", "marcou", "farense", "epoca", "casa", "1989"}) >= 4, text


def test_evaluation_has_greetings_that_no_training_has() -> None:
    assert not {*BEFORE, *AFTER} & {*OTHER_BEFORE, *OTHER_AFTER}
    made = [text.lower() for text in typed(other=True)]
    assert any(text.startswith("boas!") for text in made)
    assert not any(text.startswith(("olá!", "bom dia!", "uma pergunta:")) for text in made)


def test_answers_and_long_texts_stay() -> None:
    text = "Resume este texto:\n" + "O Farense ganhou. " * 30
    row = Row(messages=({"role": "user", "content": text}, {"role": "assistant", "content": "Ganhou."}))
    assert careless_row(row, Random(0)) == row
    row = Row(messages=({"role": "user", "content": ASKED}, {"role": "assistant", "content": "Não Sei, Ó."}))
    assert careless_row(row, Random(0)).messages[1] == row.messages[1]


def test_a_share_of_the_rows_by_their_number_alone() -> None:
    row = Row(messages=({"role": "user", "content": ASKED}, {"role": "assistant", "content": "30."}))
    made, other, none = (
        [sometimes_careless(row, share, seed, number) for number in range(1000)]
        for share, seed in ((0.3, 7), (0.3, 8), (0.0, 7))
    )
    changed = [number for number, one in enumerate(made) if one != row]
    assert 250 < len(changed) < 350
    assert sometimes_careless(row, 0.3, 7, changed[-1]) == made[changed[-1]]
    assert other != made and none == [row] * 1000


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(Config(model=str(tiny_model)))


def test_training_learns_from_them_and_all_else_is_as_it_was(base: Base, tmp_path: Path) -> None:
    path = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    config = Config(model=str(base.path), train_data=path, val_data=path, remove_duplicates=False)
    plain, some = (load_data(config.changed(careless=share), base) for share in (0.0, 1.0))
    assert some.training.rows() == plain.training.rows()
    differ = [
        not np.array_equal(one.tokens, two.tokens)
        for one, two in zip(plain.training, some.training, strict=True)
    ]
    assert all(differ)
    for one, two in zip(plain.training, some.training, strict=True):  # what is learnt is the same
        assert np.array_equal(one.tokens[one.supervised], two.tokens[two.supervised])
    assert some.held_out() == plain.held_out()
    asked = plain.held_out()
    assert [*asked] == [VALIDATION, CARELESS]
    assert [row.messages[-1] for row in asked[CARELESS]] == [row.messages[-1] for row in asked[VALIDATION]]
    assert asked[CARELESS] != asked[VALIDATION]
