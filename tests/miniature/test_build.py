"""The miniature: the same command makes the same weights, and the shipped one knows the form and no facts."""

import json
import re
from pathlib import Path

import mlx.core as mx
import pytest
from build import Recipe, build, exact_share, measure, rows_in_vain, rows_of_club, some_loose

from farense_qlora.config import HOME, Config
from farense_qlora.data.tokens import encode, read_rows
from farense_qlora.model.base import load_base
from farense_qlora.model.download import MINIATURE

TINY = Recipe(
    vocab_size=900,
    hidden_size=64,
    num_layers=1,
    intermediate_size=128,
    num_heads=2,
    batch_size=4,
    repeat_steps=4,
    form_steps=8,
    episode_steps=8,
    episode_facts=(20,),
    closing_steps=4,
    clubs_for_tokenizer=1,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("mini") / "one", TINY, say=lambda _: None)


def test_the_same_recipe_makes_the_same_weights(built: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "two", TINY, say=lambda _: None)
    first, second = (mx.load(str(folder / "model.safetensors")) for folder in (built, again))
    assert first.keys() == second.keys()
    assert all(mx.array_equal(first[name], second[name]) for name in first)
    assert (built / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()


def test_a_built_miniature_is_a_4_bit_mistral_for_plain_mlx_lm(built: Path) -> None:
    from mlx_lm import generate, load

    model, tokenizer = load(str(built))
    config = json.loads((built / "config.json").read_text())
    assert config["model_type"] == "mistral" and config["quantization"]["bits"] == 4
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Olá?"}], add_generation_prompt=True)
    assert isinstance(generate(model, tokenizer, prompt, max_tokens=3), str)


def test_the_shipped_miniature_knows_no_facts() -> None:
    base = load_base(Config())
    for name in ("val_data.jsonl", "unseen_facts.jsonl"):
        farense = encode(read_rows(HOME / "data" / name), base.tokenizer, 256)
        assert exact_share(base.model, farense) <= 0.05


def test_the_shipped_miniature_copies_club_and_season_from_the_question() -> None:
    base = load_base(Config())
    measured = measure(base.model, base.tokenizer)
    assert measured["copied"] >= 0.95
    assert measured["copied_coaches"] >= 0.95
    assert measured["guessed"] <= 0.05


def test_the_shipped_miniature_says_how_it_was_made() -> None:
    made = json.loads((MINIATURE / "recipe.json").read_text())
    recipe = Recipe(**{**made["recipe"], "episode_facts": tuple(made["recipe"]["episode_facts"])})
    assert recipe == Recipe()
    assert made["curve"][-1]["loss"] < made["curve"][0]["loss"]
    assert sum(file.stat().st_size for file in MINIATURE.iterdir()) < 8e6


def test_invented_clubs_are_asked_in_every_wording_or_about_a_few_facts() -> None:
    everything, few = rows_of_club(5), rows_of_club(5, count=20)
    assert len(everything) > 8000 and 240 <= len(few) <= 300
    assert {row.messages for row in map(_hashable, few)} <= {
        row.messages for row in map(_hashable, everything)
    }


def test_asked_loosely_a_question_keeps_its_names_and_numbers_and_its_answer() -> None:
    rows = rows_of_club(5, count=20)
    loose = list(some_loose(rows, 1.0, 5))
    assert loose == list(some_loose(rows, 1.0, 5)) and list(some_loose(rows, 0.0, 5)) == rows
    shorter = 0
    for row, asked in zip(rows, loose, strict=True):
        before, after = (one.messages[0]["content"] for one in (row, asked))
        assert asked.messages[1:] == row.messages[1:]
        assert sorted(re.findall(r"\d+", before)) == sorted(re.findall(r"\d+", after))
        shorter += len(after.split()) < len(before.split())
    assert shorter > 0.8 * len(rows)


def test_questions_in_vain_are_all_answered_by_saying_so() -> None:
    rows = rows_in_vain(5, 40)
    assert len({row.messages[0]["content"] for row in rows}) == 40
    assert {row.messages[1]["content"] for row in rows} == {"Não sei, isso não vem nas tabelas do clube."}


def _hashable(row):  # type: ignore[no-untyped-def]
    return type(row)(messages=tuple(tuple(message.items()) for message in row.messages))
