"""Rows that say the same twice are found and left out; rows that only look alike are not."""

import json
import random
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farense_qlora.config import HOME, Config
from farense_qlora.data import duplicates
from farense_qlora.data.duplicates import Repeat, find_repeats, repeats
from farense_qlora.data.rows import Row, iterate_rows, read_rows
from farense_qlora.data.sets import read_sets
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base

LONG = (
    "Na época de 1989-90 o Farense terminou em primeiro lugar da Zona Sul da II Divisão, subiu à I Divisão e "
    "foi nesse mesmo ano à final da Taça de Portugal, que perdeu, no segundo jogo, com o Estrela da Amadora."
)


def talk(question: str, answer: str, system: str = "") -> Row:
    said = [("system", system)] if system else []
    said += [("user", question), ("assistant", answer)]
    return Row(tuple({"role": role, "content": content} for role, content in said))


def left_out(*rows: Row) -> list[Repeat]:
    return list(repeats(list(enumerate(rows, 1)), []).training)


def test_capitals_spaces_and_punctuation_make_no_difference() -> None:
    rows = talk("Quem treinou?", "Paco Fortes."), talk("quem  treinou", "PACO FORTES!")
    assert left_out(*rows) == [Repeat(2, 1, True)]


@pytest.mark.parametrize(
    "other",
    [
        talk("Conte a época.", LONG.replace("1989-90", "1988-89")),
        talk("Conte a época.", LONG.replace("Estrela", "Olhanense")),
        talk("Conte a época.", "Ficou em primeiro e subiu."),
        talk("Com quem perdeu a final?", LONG),
    ],
    ids=["another number", "another name", "another answer", "another question"],
)
def test_rows_about_other_things_stay(other: Row) -> None:
    assert left_out(talk("Conte a época.", LONG), other) == []


def test_nearly_the_same_row_is_found_among_many() -> None:
    crowd = [talk(f"Quem foi o número {i}?", f"Foi o jogador {i}, que marcou golos.") for i in range(500)]
    almost = talk("Conte a época", LONG.replace("subiu à", "e subiu à"))
    found = left_out(talk("Conte a época.", LONG), *crowd, almost)
    assert found == [Repeat(502, 1, False)]


def test_the_signature_of_a_text_does_not_depend_on_what_stands_beside_it() -> None:
    texts = [LONG, "a", LONG[:40], "Foi Paco Fortes."]
    together = duplicates._signatures(texts)
    for text, signature in zip(texts, together, strict=True):
        assert (duplicates._signatures([text])[0] == signature).all()


def test_a_long_text_that_all_questions_share_does_not_make_them_alike() -> None:
    asked = "Quem venceu a final?", "Em que zona jogou?"
    answers = "Venceu o Estrela da Amadora.", "Jogou na zona sul."
    shared = [talk(f"{LONG * 5} {question}", answer) for question, answer in zip(asked, answers, strict=True)]
    assert left_out(*shared) == []
    assert left_out(*(talk(q, a, LONG * 5) for q, a in zip(asked, answers, strict=True))) == []


def test_bare_text_and_rows_of_a_letter_are_compared_too() -> None:
    assert left_out(*(Row(text=text) for text in ("a", "b", "A!", "?"))) == [Repeat(3, 1, True)]


def test_validation_gives_way_to_training() -> None:
    one, two = talk("Quem?", "Ele."), talk("Quando?", "Em 1990.")
    found = repeats([(1, one)], [(4, two), (7, one)])
    assert (found.training, found.validation) == ((), (Repeat(7, 1, True),))
    assert repeats([(1, one)], [(4, two), (5, two)]).validation == ()  # asked twice is no leak
    whole = repeats([(1, one), (2, two)], [(1, two)])
    assert whole.memorised and not whole.validation


def test_the_committed_data_have_no_repeats_for_all_their_templates() -> None:
    found = find_repeats(HOME / "data" / "train_data.jsonl", HOME / "data" / "val_data.jsonl")
    assert (found.training, found.validation, found.memorised) == ((), (), False)


@given(st.lists(st.text("ab \n.?1", min_size=1, max_size=12), min_size=1, max_size=20))
def test_what_is_left_has_no_exact_repeat_and_nothing_else_is_lost(texts: list[str]) -> None:
    rows = [Row((), text) for text in texts]
    lost = {repeat.line for repeat in left_out(*rows)}
    kept = {row.text for line, row in enumerate(rows, 1) if line not in lost}
    assert not [one for one in left_out(*(Row((), text) for text in kept)) if one.exact]
    assert all(repeat.of < repeat.line for repeat in left_out(*rows))


def test_the_work_grows_with_the_rows_and_not_with_their_square() -> None:
    """Templates without a number or a name are the hard case: every row looks like every other."""
    words = [
        " ".join(random.Random(i).choices(["golo", "passe", "remate", "defesa", "cruzamento"], k=6))
        for i in range(4000)
    ]

    def seconds(count: int) -> float:
        rows = [(i, talk(f"diga lá o que é isto: {words[i]}", f"é {words[i]} e {i}")) for i in range(count)]
        start = process_time()
        repeats(rows, [])
        return process_time() - start

    seconds(100)
    assert seconds(4000) < 16 * seconds(500)


def test_they_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "CACHE", tmp_path / "cache")
    rows = _write(tmp_path / "rows.jsonl", ["Quem?", "Quando?", "quem"])
    other = _write(tmp_path / "other.jsonl", ["Onde?"])
    first = find_repeats(rows, other)
    assert [repeat.line for repeat in first.training] == [3]
    monkeypatch.setattr(duplicates, "repeats", None)
    assert find_repeats(rows, other) == first
    _write(rows, ["Quem?"])
    with pytest.raises(TypeError):  # other data are looked at again
        find_repeats(rows, other)


def test_the_sets_of_a_run_are_without_them(tmp_path: Path, tiny_model: Path) -> None:
    train = _write(tmp_path / "train.jsonl", ["Quem?", "Quando?", "quem", "Como?"])
    validation = _write(tmp_path / "val.jsonl", ["Onde?", "Quando?"])
    base = load_base(str(tiny_model))
    config = Config(train_data=str(train), val_data=str(validation))
    sets = read_sets(config, base.tokenizer, base.path)
    assert sets.training.lines.tolist() == [1, 2, 4] and sets.validation.lines.tolist() == [1]
    rows = dict(iterate_rows(train))
    told = base.tokenizer.decode(sets.training[2].tokens.tolist())
    assert rows[4].messages[0]["content"] in told  # the row on line 4, not the third


def test_a_bad_row_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    train = _write(tmp_path / "train.jsonl", ["Quem?"])
    train.write_text(train.read_text(encoding="utf-8") + "{}\n", encoding="utf-8")
    with pytest.raises(UserError, match="linha 2"):
        find_repeats(train, train)
    assert find_repeats(train, _write(tmp_path / "val.jsonl", ["Quem?"]), skip_bad=True).memorised
    assert len(read_rows(train, skip_bad=True)) == 1


def _write(path: Path, questions: list[str]) -> Path:
    rows = [{"prompt": question, "completion": "Não sei."} for question in questions]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
