"""What counts as the same answer, and how answers are scored."""

import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from farense_qlora.answers import evaluate as module
from farense_qlora.answers.evaluate import Score, evaluate, judge, summary, token_scores
from farense_qlora.answers.normalise import normalise, token_f1
from farense_qlora.config import Config
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.data.load import load_data
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import read_rows
from farense_qlora.errors import UserError
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.evaluation import validation_loss


@pytest.mark.parametrize(
    "one, other",
    [
        ("Ficou em 5.º lugar.", "ficou em quinto lugar"),
        ("5.ª posição", "5ª posição"),
        ("No Estádio de São Luís", "em estadio de sao luis"),
        ("Foi a final da Taça de Portugal!", "foi final de taça de Portugal"),
        ("época de 1989-90", "Época de 1989/1990"),
        ("1999-00", "1999-2000"),
        ("1.500 espectadores", "1500 espectadores"),
        ("doze golos", "12 golos"),
        ("vinte e uma vitórias", "21 vitórias"),
        ("quarenta e dois golos em cem jogos", "42 golos em 100 jogos"),
        ("em décimo quarto lugar", "em 14.º lugar"),
        ("a décima primeira época", "a 11.ª época"),
        ("perdeu por 2-1", "perdeu por 2–1"),
        ("  Sim,\n ficou. ", "sim ficou"),
    ],
)
def test_the_same_answer_written_differently(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    "one, other",
    [
        ("Ficou em 5.º lugar.", "Ficou em 6.º lugar."),
        ("1989-90", "1990-91"),
        ("subiu à I Divisão", "subiu à II Divisão"),
        ("perdeu por 2-1", "perdeu por 21"),
        ("vinte e uma vitórias", "vinte e duas vitórias"),
        ("vinte e um", "20 1"),
        ("décimo primeiro", "décimo"),
        ("44 golos, 100 pontos", "44100 golos pontos"),
        ("Sim, subiu.", "Não, subiu."),
        ("Foi Paco Fortes.", "Foi Paco Fortes, em 1989."),
    ],
)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_token_f1_is_the_overlap_of_words() -> None:
    assert token_f1("Foi Paco Fortes.", "foi paco fortes") == 1.0
    assert token_f1("Foi Paco Fortes.", "Foi Fernando Fortes.") == pytest.approx(2 / 3)
    assert token_f1("Foi Paco Fortes.", "") == 0.0
    assert token_f1("não não", "não") == pytest.approx(2 / 3)


def row(question: str, expected: str, kind: str = "", table: str = "") -> Row:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": expected})
    return Row(messages=turns, kind=kind, table=table)


def test_scores_are_given_as_a_whole_and_by_group() -> None:
    judged = [
        judge(row("A?", "Foi em 1990.", "facto", "cups"), "foi em 1990"),
        judge(row("B?", "Foi em 1991.", "facto", "seasons"), " Foi em 1990. "),
        judge(row("C?", "Não.", "sim-nao", "seasons"), "Não."),
    ]
    result = summary("prova", judged)
    assert (result.count, result.exact_match) == (3, pytest.approx(2 / 3))
    assert result.by_kind["sim-nao"] == Score(1, 1.0, 1.0, (1.0, 1.0), (1.0, 1.0))
    assert result.by_kind["facto"] == Score(2, 0.5, pytest.approx(5 / 6), (0, 1), pytest.approx((2 / 3, 1)))
    assert result.by_table["seasons"].exact_match == 0.5
    assert [(answer.question, answer.got) for answer in result.wrong] == [("B?", "Foi em 1990.")]
    assert [label for label, _ in result.table()] == ["prova", "um facto", "sim ou não", "taças", "épocas"]


def test_a_conversation_is_asked_its_last_question_given_the_true_turns(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answers(base: Base, prompts: list[list[int]], *_: object) -> list[str]:
        asked.extend(prompts)
        return ["Não."]

    monkeypatch.setattr(module, "answers", answers)
    turns = [("user", "Subiu?"), ("assistant", "Sim."), ("user", "E desceu?"), ("assistant", "Não.")]
    messages = tuple({"role": role, "content": text} for role, text in turns)
    base = load_base(Config(model=str(tiny_model)))
    assert evaluate(base, [Row(messages=messages)], "prova").exact_match == 1.0
    assert asked == [prompt_tokens(messages[:-1], base.tokenizer)]


def test_the_same_model_and_rows_give_the_same_figures(tiny_model: Path) -> None:
    rows = [row(f"Quem foi o {n}?", f"Foi o {n}.") for n in range(40)]
    assert evaluate(load_base(Config(model=str(tiny_model))), rows, "a") == evaluate(
        load_base(Config(model=str(tiny_model))), rows, "a"
    )


def test_perplexity_is_that_of_the_validation_loss_and_accuracy_counts_the_first_choices(
    home: Path, tiny_model: Path
) -> None:
    config = Config(val_data=str(home / "data" / "val_data.jsonl"))
    base = load_base(Config(model=str(tiny_model)))
    sets = load_data(config, base)
    data, found = sets.validation, token_scores(base, sets)
    assert math.log(found.perplexity) == pytest.approx(validation_loss(base.model, data, config), rel=1e-5)
    hits = []
    for example in data:
        best = base.model(mx.array(example.tokens)[None])[0].argmax(axis=-1).tolist()
        hits += [best[i - 1] == example.tokens[i] for i in np.flatnonzero(example.supervised)]
    assert (found.tokens, found.accuracy) == (len(hits), sum(hits) / len(hits))
    low, high = found.perplexity_interval
    assert low < found.perplexity < high
    assert found == token_scores(base, sets)


def test_rows_without_a_conversation_cannot_be_evaluated(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="prova: não há nenhuma pergunta"):
        evaluate(load_base(Config(model=str(tiny_model))), [Row(text="solto")], "prova")


def test_unseen_facts_are_evaluated_where_there_are_any(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    base, train = load_base(Config(model=str(tiny_model))), str(home / "data" / "train_data.jsonl")
    config = Config(train_data=train, val_data=str(home / "data" / "val_data.jsonl"))
    sets = load_data(config, base)
    assert [len(rows) for rows in sets.held_out().values()] == [8, 2]
    alone = tmp_path / "val_data.jsonl"
    alone.write_bytes((home / "data" / "val_data.jsonl").read_bytes())
    sets = load_data(config.changed(val_data=str(alone)), base)
    assert list(sets.held_out().values()) == [read_rows(alone)]
