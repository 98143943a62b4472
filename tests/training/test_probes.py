"""The probe questions are asked after every evaluation and leave training as it was."""

import json
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import pytest
from tiny import PEOPLE, write_rows
from train_here import train_here

from farense_qlora.answers.generate import ask
from farense_qlora.config import Config
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import read_rows
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.events import Evaluated, Event, Sampled, Stepped
from farense_qlora.training.probes import MAX_TOKENS, Probes


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    path = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini",
        model=str(tiny_model),
        dropout=0.1,
        batch_size=4,
        max_steps=6,
        epochs=3,
        eval_every=3,
        learning_rate=3e-3,
        train_data=path,
        val_data=path,
    )


def events_of(config: Config, run: Path) -> list[Event]:
    return list(train_here(config, run))


def test_each_evaluation_is_followed_by_the_answers_to_the_same_questions(
    config: Config, tmp_path: Path
) -> None:
    events = events_of(config, tmp_path / "run")
    pairs = [(a, b) for a, b in pairwise(events) if isinstance(a, Evaluated)]
    assert [(a.step, b.step) for a, b in pairs] == [(0, 0), (3, 3), (6, 6)]
    asked = [b for _, b in pairs if isinstance(b, Sampled)]
    assert len(asked) == 3 and len({event.questions for event in asked}) == 1
    rows = read_rows(Path(config.val_data))
    truth = {row.messages[0]["content"]: row.messages[1]["content"] for row in rows}
    first = asked[0]
    assert len(first.questions) == 3
    assert tuple(truth[question] for question in first.questions) == first.expected


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_asking_changes_no_number_and_no_bit(config: Config, tmp_path: Path, checkpointing: bool) -> None:
    losses, weights = [], []
    for probes in (0, 3):
        run = tmp_path / str(probes)
        events = events_of(config.changed(probes=probes, grad_checkpoint=checkpointing), run)
        assert any(isinstance(event, Sampled) for event in events) == bool(probes)
        losses.append([event.loss for event in events if isinstance(event, Stepped | Evaluated)])
        weights.append((run / "checkpoints/step-000006/adapters.safetensors").read_bytes())
    assert losses[0] == losses[1] and weights[0] == weights[1]


def test_the_answers_are_the_models_own_and_draw_no_random_numbers(config: Config) -> None:
    base: Base = load_base(config)
    probes = Probes(read_rows(Path(config.val_data)), base.tokenizer, 2)
    mx.random.seed(1)
    before = mx.random.state[0].tolist()
    answers = probes.answers(base.model)
    assert mx.random.state[0].tolist() == before and base.model.training
    assert answers == tuple(ask(base, question, MAX_TOKENS).strip() for question in probes.questions)


def test_rows_without_a_question_are_not_asked(config: Config) -> None:
    base = load_base(config)
    assert Probes([Row(text="Era uma vez.")], base.tokenizer, 3).questions == ()
    talk = json.loads('[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]')
    assert Probes([Row(tuple(talk * 2)), Row(tuple(talk))], base.tokenizer, 3).questions == ("a",)


def test_tables_take_turns_the_one_most_asked_about_first(config: Config) -> None:
    def row(table: str, question: str) -> Row:
        said = (("user", question), ("assistant", "Sim."))
        return Row(tuple({"role": role, "content": text} for role, text in said), table=table)

    rows = [row("cups", "a"), row("seasons", "b"), row("club", "c"), row("seasons", "d"), row("cups", "e")]
    rows.append(row("seasons", "f"))
    base = load_base(config)
    assert Probes(rows, base.tokenizer, 4).questions == ("b", "a", "c", "d")
    assert set(Probes(rows, base.tokenizer, 9).questions) == set("abcdef")
