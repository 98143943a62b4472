"""The sets of a run: the same rows for all that use them, nothing in both, and what is left out is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farense_qlora.config import HOME, Config
from farense_qlora.data.load import Data, load_data, write_left_out
from farense_qlora.data.rows import parse_row
from farense_qlora.errors import UserError
from farense_qlora.model.base import Base, load_base


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> Base:
    return load_base(Config(model=str(tiny_model)))


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def asks(*questions: str) -> list[dict[str, Any]]:
    return [{"prompt": question, "completion": "Não sei."} for question in questions]


def load(base: Base, **settings: Any) -> Data:
    return load_data(Config(model=base.name, **settings), base)


def test_repeats_and_leaks_are_left_out_by_line(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asks("Quem?", "Quando?", "Quem?", "Como?", "Quem?"))
    val = write(tmp_path / "val.jsonl", asks("Onde?", "Quando?"))
    data = load(base, train_data=train, val_data=val)
    assert data.training.lines.tolist() == [1, 2, 4] and data.validation.lines.tolist() == [1]
    assert (data.repeats, data.leaks) == (((3, 1), (5, 1)), ((2, 2),))
    assert [row.messages[0]["content"] for row in data.held_out()["perguntas por outras palavras"]] == [
        "Onde?"
    ]
    kept = load(base, train_data=train, val_data=val, remove_duplicates=False)
    assert len(kept.training) == 5 and len(kept.validation) == 2 and not kept.repeats + kept.leaks
    said = "\n".join(data.sentences)
    assert "2 de treino, 1 da validação (a 3 repete a 1; a 2 da validação está no treino (2))" in said


def test_a_validation_that_is_all_in_the_training_is_learnt_by_heart(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asks("Quem?", "Quando?"))
    data = load(base, train_data=train, val_data=train)
    assert data.memorised and len(data.validation) == 2 and not data.leaks


def test_one_question_with_two_answers_is_said(base: Base, tmp_path: Path) -> None:
    rows = [*asks("Quem?", "Quando?"), {"prompt": "Quem?", "completion": "Ele."}]
    data = load(
        base, train_data=write(tmp_path / "train.jsonl", rows), val_data=write(tmp_path / "v", asks("E?"))
    )
    assert data.conflicts == ((1, 3),) and len(data.training) == 3
    assert any("respostas diferentes: 1 (linhas 1 e 3)" in one for one in data.sentences)


def test_the_clubs_validation_is_not_for_other_rows(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asks(*(f"Quem foi o número {i}?" for i in range(40))))
    config = Config(train_data=train)
    assert config.val_data == "" == Config.of("mistral-7b", train_data=train).val_data
    data = load_data(config, base)
    assert data.split and (len(data.training), len(data.validation)) == (36, 4)
    assert "validação" in data.held_out() and "perguntas por outras palavras" not in data.held_out()
    assert not set(data.training.lines) & set(data.validation.lines)
    again = load_data(config, base)
    assert again.validation.lines.tolist() == data.validation.lines.tolist()
    other = load_data(config.changed(seed=1), base)
    assert other.validation.lines.tolist() != data.validation.lines.tolist()
    assert any("4 linhas do treino" in one for one in data.sentences)


def test_alike_rows_are_on_one_side_of_a_split(base: Base, tmp_path: Path) -> None:
    questions = [f"Quem treinou a equipa principal na temporada de {1950 + i}?" for i in range(20)]
    rows = asks(*(q for question in questions for q in (question, question.lower(), question + " Diga.")))
    data = load(base, train_data=write(tmp_path / "train.jsonl", rows))
    sides = np.isin(np.arange(1, 61), data.validation.lines).reshape(20, 3)
    assert data.split and sides.any() and (sides.all(axis=1) == sides.any(axis=1)).all()


def test_rows_that_are_all_alike_cannot_be_split(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*asks("Quem?"), {"prompt": "Quem?", "completion": "Ele."}])
    with pytest.raises(UserError, match=r"não há linhas que cheguem.*--val-data"):
        load(base, train_data=train)


def test_one_row_cannot_be_split(base: Base, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="não há linhas que cheguem"):
        load(base, train_data=write(tmp_path / "train.jsonl", asks("Quem?")))


def test_validation_rows_beside_the_training_are_said_and_not_taken(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", asks("Quem?", "Quando?", "Onde foi?", "Como se fez?"))
    beside = write(tmp_path / "valid.jsonl", asks("Porquê?"))
    data = load(base, train_data=train)
    assert data.split
    assert any(f"--val-data {beside}" in one for one in data.sentences)
    assert not load(base, train_data=train, val_data=beside).split


def test_bad_rows_are_skipped_in_every_set_and_kept_with_the_run(base: Base, tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [*asks("Quem?", "Onde?"), {"prompt": 3, "completion": "x"}])
    val = write(tmp_path / "val.jsonl", [{"a": 1}, *asks("Quando? " * 300, "E?")])
    with pytest.raises(UserError, match=r"train\.jsonl, linha 3"):
        load(base, train_data=train, val_data=val)
    config = Config(train_data=train, val_data=val, skip_bad=True, max_seq_length=64)
    data = load_data(config, base)
    assert data.validation.lines.tolist() == [3] == [line for line, _ in data.validation.rows()]
    write_left_out(config, data, tmp_path / "run")
    told = [json.loads(line) for line in (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()]
    assert [(one["file"], one["line"]) for one in told] == [(train, 3), (val, 1), (val, 2)]
    assert all(one["reason"] for one in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "train.jsonl", "val.jsonl"]


def test_a_validation_that_was_made_is_kept_with_the_run(base: Base, tmp_path: Path) -> None:
    config = Config(train_data=write(tmp_path / "train.jsonl", asks(*(f"Quem foi {i}?" for i in range(30)))))
    data = load_data(config, base)
    write_left_out(config, data, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "validation.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == data.validation.lines.tolist()
    assert [parse_row(row).messages for row in rows] == [row.messages for _, row in data.validation.rows()]


def test_what_the_template_does_to_the_rows_is_said(tmp_path: Path, tiny_model: Path) -> None:
    base = load_base(Config(model=str(tiny_model)))
    base.tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "{{ strftime_now('%Y') }} {{ m.role }}: {{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ strftime_now('%Y') }} assistant: {% endif %}"
    )
    rows = [{"system": "Sê breve.", **row} for row in asks("Quem?", "Quando?")] + [{"text": "Era uma vez."}]
    config = Config(
        train_data=write(tmp_path / "t.jsonl", rows), val_data=write(tmp_path / "v.jsonl", asks("E?"))
    )
    said = load_data(config, base).sentences
    assert "3 linhas; de texto corrido" in said[0] and "à parte: 2" in said[0]
    assert any("fica fixa em 2026-01-01" in one for one in said)


def test_the_committed_data_have_nothing_to_leave_out() -> None:
    mini = load_base(Config())
    data = load_data(Config(), mini)
    assert (data.repeats, data.leaks, data.memorised) == ((), (), False)
    assert len(data.training) >= 2528 and {name: len(rows) for name, rows in data.asked_too.items()} == {
        "construídas de outra maneira": 143, "sem resposta nas tabelas": 80, "factos nunca vistos": 62
    }  # fmt: skip
    assert (HOME / "data" / "unseen_facts.jsonl").is_file()
