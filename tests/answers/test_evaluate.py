"""What counts as the same answer, how answers are scored, and how sure that is: bootstrap intervals cover the
truth as often as they say, and are the same each time."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from farense_qlora.answers import evaluate as module
from farense_qlora.answers.evaluate import (
    Evaluation,
    answered,
    evaluate,
    evaluate_rows,
    judge,
)
from farense_qlora.answers.intervals import mean_interval, share_interval
from farense_qlora.answers.normalise import normalise, refuses, says, token_f1
from farense_qlora.answers.perplexity import token_scores
from farense_qlora.config import Config
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.data.load import CARELESS, VALIDATION, load_data
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import read_rows
from farense_qlora.errors import UserError
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.step import validation_loss


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
        ("Subiu à I Divisão. A taça é o «Farense».", "subiu I divisão. taça é Farense"),
        ("Na Série A, em 1950.", "na série A em 1950"),
        ("perdeu por 2-1", "perdeu por 2–1"),
        ("  Sim,\n ficou. ", "sim ficou"),
        ("saldo de -5", "saldo de menos cinco"),
        ("2 - 1", "2 -1"),
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
        ("Na Série A.", "Na Série O."),
        ("Na Série A.", "Na Série."),
        ("Na Zona A da II Divisão", "Na Zona B da II Divisão"),
        ("-5", "5"),
        ("saldo de −5", "saldo de 5"),
    ],
)
def test_different_answers_stay_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_token_f1_is_the_overlap_of_words() -> None:
    assert token_f1("Foi Paco Fortes.", "foi paco fortes") == 1.0
    assert token_f1("Foi Paco Fortes.", "Foi Fernando Fortes.") == pytest.approx(2 / 3)
    assert token_f1("Foi Paco Fortes.", "") == 0.0
    assert token_f1("não não", "não") == pytest.approx(2 / 3)


COACH = ("Em 1989-90, o Farense foi treinado por Paco Fortes.", "Quem treinou o Farense em 1989-90?")
PLACE = ("Em 1994-95, o Farense ficou em 5.º lugar na I Divisão.", "Que lugar coube ao Farense em 1994-95?")


@pytest.mark.parametrize(
    ("got", "told", "short", "right"),
    [
        ("O treinador nessa época era Paco Fortes.", COACH, "Paco Fortes.", True),
        ("Em 1989-90, o Farense foi treinado por Paco Fortes.", COACH, "Paco Fortes.", True),
        ("Foi o Paco.", COACH, "Paco Fortes.", False),
        ("Paco Fortes ou João Alves.", COACH, "Paco Fortes.", False),
        ("O Farense foi treinado por Manuel Cajuda.", COACH, "Paco Fortes.", False),
        ("Em 1990-91 foi treinado por Paco Fortes.", COACH, "Paco Fortes.", False),
        ("O clube acabou no quinto lugar da I Divisão.", PLACE, "Ficou em 5.º lugar na I Divisão.", True),
        ("O clube acabou em 5.º lugar na II Divisão.", PLACE, "Ficou em 5.º lugar na I Divisão.", False),
        ("O clube acabou em 6.º lugar na I Divisão.", PLACE, "Ficou em 5.º lugar na I Divisão.", False),
        ("A mascote é o leão.", ("A mascote do Farense é o leão.", "Que mascote tem?"), "O leão.", True),
        ("A mascote é a águia.", ("A mascote do Farense é o leão.", "Que mascote tem?"), "O leão.", False),
        ("Não, foi Paco Fortes.", ("Sim, foi Paco Fortes.", "Foi Paco Fortes?"), "Sim.", False),
        ("", COACH, "Paco Fortes.", False),
    ],
)
def test_a_sentence_is_right_by_the_facts_in_it(
    got: str, told: tuple[str, str], short: str, right: bool
) -> None:
    assert says(got, *told, short) == right


def test_a_row_with_a_sentence_takes_both_answers_and_others_take_one() -> None:
    sentence, asked = COACH
    rows = [row(asked, "Paco Fortes."), replace(row(asked, "Paco Fortes."), sentence=sentence)]
    given = ("paco fortes", sentence, "Em 1989-90 era Paco Fortes.", "João Alves.")
    assert [[judge(one, got).exact for got in given] for one in rows] == [
        [True, False, False, False], [True, True, True, False]
    ]  # fmt: skip
    assert judge(rows[1], sentence).f1 == 1.0


def test_what_is_not_known_is_counted() -> None:
    assert (
        refuses("Não sei, isso não vem nas tabelas.")
        and refuses("não sei")
        and not refuses("Não, ficou em 5.º.")
    )
    asked = [judge(row("A?", "Não sei."), "Não sei."), judge(row("B?", "Em 1990."), "não sei…")]
    assert answered("prova", asked).refused == 1.0 and answered("prova", asked).exact_match == 0.5


def row(question: str, expected: str, kind: str = "", table: str = "") -> Row:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": expected})
    return Row(messages=turns, kind=kind, table=table)


def three() -> Evaluation:
    known = [
        judge(row("A?", "Foi em 1990.", "facto", "cups"), "foi em 1990"),
        judge(row("B?", "Foi em <1991>.", "facto", "seasons"), " Foi em 1990. "),
        judge(row("C?", "Não.", "sim-nao", "seasons"), "Não."),
    ]
    other = [judge(row("D?", "Não."), "Não.")]
    return Evaluation(sets=(answered("prova", known), answered("outra", other)))


def test_scores_are_given_as_a_whole_and_by_group() -> None:
    known = three().sets[0]
    assert (known.count, known.refused) == (3, 0.0)
    assert (known.exact_match, known.f1) == (pytest.approx(2 / 3), pytest.approx(8 / 9))
    assert known.exact_interval == pytest.approx((0.208, 0.939), abs=1e-3)
    assert known.f1_interval == pytest.approx((0.349, 0.992), abs=1e-3)
    assert known.by_kind["sim-nao"].exact_interval == pytest.approx((0.207, 1), abs=1e-3)
    facts = known.by_kind["facto"]
    assert (facts.count, facts.exact_match, facts.f1) == (2, 0.5, pytest.approx(5 / 6))
    assert facts.f1_interval == pytest.approx((0.241, 0.987), abs=1e-3)
    assert known.by_table["seasons"].exact_match == 0.5
    assert [(answer.question, answer.got) for answer in three().sets[0].wrong] == [("B?", "Foi em 1990.")]
    answers = three().answers
    assert [*answers["answer"]] == ["foi em 1990", "Foi em 1990.", "Não.", "Não."]
    assert [row[6] for row in answers.cells()] == ["✓", "✗", "✓", "✓"] and answers["f1"].mean() > 0.9


def test_an_evaluation_draws_its_scores_in_portuguese_and_folds_the_wrong_answers_away() -> None:
    lines = repr(three()).splitlines()
    assert re.split("  +", lines[0].strip()) == ["perguntas", "certas", "F1", "diz que não sabe"]
    assert re.fullmatch(r"prova +3 +66,7 % \[20,8; 93,9\] +88,9 % \[34,9; 99,2\] +0,0 %", lines[2])
    kinds, tables = ["– um facto", "– sim ou não"], ["– taças", "– épocas"]
    names = ["prova", "por tipo de pergunta:", *kinds, "por tabela de factos:", *tables, "outra"]
    assert [re.split(r"  +", line)[0] for line in lines[2:]] == names
    assert len({len(line) for line in lines[2:] if not line.endswith(":")}) == 1
    page = three()._repr_html_()
    assert "<summary>prova: ✓ 2, ✗ 1</summary>" in page and "&lt;1991&gt;" in page and "<1991>" not in page


def test_an_evaluation_is_read_as_it_was_stored(tmp_path: Path) -> None:
    assert Evaluation.read(tmp_path) is None
    three().save(tmp_path, three())
    stored = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    known, other = stored["after"]
    low = pytest.approx([0.207, 1], abs=1e-3)
    assert known["name"] == "prova" and known["by_kind"].keys() == {"facto", "sim-nao"}
    assert known["by_table"]["cups"] == {
        "count": 1, "exact_match": 1.0, "f1": 1.0, "refused": 0.0, "exact_interval": low, "f1_interval": low,
    }  # fmt: skip
    assert other["answers"] == [
        {
            "question": "D?",
            "expected": "Não.",
            "got": "Não.",
            "kind": "",
            "table": "",
            "exact": True,
            "f1": 1.0,
        }
    ]
    read = Evaluation.read(tmp_path)
    assert read is not None and read.before is not None
    assert read.sets == read.before.sets == three().sets
    three().save(tmp_path)
    assert (alone := Evaluation.read(tmp_path)) is not None and alone.before is None
    for damaged in ("{", '{"tokens": null}'):
        (tmp_path / "evaluation.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(UserError, match="não se lê: repita a avaliação ou apague-o"):
            Evaluation.read(tmp_path)


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
    assert [*evaluate_rows(base, [Row(messages=messages)], "prova").answers["exact"]] == [True]
    assert asked == [prompt_tokens(messages[:-1], base.tokenizer)]


def test_the_same_model_and_rows_give_the_same_figures(tiny_model: Path) -> None:
    rows = [row(f"Quem foi o {n}?", f"Foi o {n}.") for n in range(40)]
    one, other = (evaluate_rows(load_base(Config(model=str(tiny_model))), rows, "a") for _ in range(2))
    assert one == other


def test_perplexity_is_that_of_the_validation_loss_and_accuracy_counts_the_first_choices(
    home: Path, tiny_model: Path
) -> None:
    config = Config(val_data=str(home / "data" / "val_data.jsonl"))
    base = load_base(Config(model=str(tiny_model)))
    sets = load_data(config, base)
    data, found = sets.validation, token_scores(base, sets.validation)
    assert math.log(found.perplexity) == pytest.approx(validation_loss(base.model, data, config), rel=1e-5)
    hits = []
    for example in data:
        best = base.model(mx.array(example.tokens)[None])[0].argmax(axis=-1).tolist()
        hits += [best[i - 1] == example.tokens[i] for i in np.flatnonzero(example.supervised)]
    assert (found.tokens, found.accuracy) == (len(hits), sum(hits) / len(hits))
    low, high = found.perplexity_interval
    assert low < found.perplexity < high
    assert found == token_scores(base, sets.validation)


def test_rows_without_a_conversation_cannot_be_evaluated(tiny_model: Path) -> None:
    with pytest.raises(UserError, match="prova: não há nenhuma pergunta"):
        evaluate_rows(load_base(Config(model=str(tiny_model))), [Row(text="solto")], "prova")


def test_unseen_facts_are_evaluated_where_there_are_any(home: Path, tmp_path: Path, tiny_model: Path) -> None:
    base, train = load_base(Config(model=str(tiny_model))), str(home / "data" / "train_data.jsonl")
    config = Config(train_data=train, val_data=str(home / "data" / "val_data.jsonl"))
    sets = load_data(config, base)
    assert [len(rows) for rows in sets.held_out().values()] == [8, 8, 2]
    ended: list[int] = []
    found = evaluate(base, sets, ended.append)
    assert (
        [score.count for score in found.sets] == [8, 8, 2]
        and sum(ended) == 18
        and found.tokens == token_scores(base, sets.validation)
    )
    alone = tmp_path / "val_data.jsonl"
    alone.write_bytes((home / "data" / "val_data.jsonl").read_bytes())
    sets = load_data(config.changed(val_data=str(alone)), base)
    assert [*sets.held_out()] == [VALIDATION, CARELESS] and sets.held_out()[VALIDATION] == read_rows(alone)


@pytest.mark.parametrize(("share", "count"), [(0.0, 61), (1.0, 20), (0.95, 61), (0.9, 20), (0.8, 282)])
def test_the_interval_of_a_share_covers_it_about_95_times_in_100(share: float, count: int) -> None:
    assert share_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # as in any table of Wilson's
    assert share_interval(0.0, 61)[1] > 0.05 and share_interval(1.0, 20)[0] < 0.85
    right = np.random.default_rng(1).binomial(count, share, 4000) / count
    covered = [
        low - 1e-9 <= share <= high + 1e-9 for low, high in (share_interval(one, count) for one in right)
    ]
    assert np.mean(covered) > 0.92


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        low, high = mean_interval(random.random(80) < 0.3, seed=trial)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    margin = 1.96 * values.std() / 20
    assert mean_interval(values) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(50.0)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_weights_make_a_ratio_of_sums() -> None:
    low, high = mean_interval([2.0, 20.0, 200.0], weights=[1.0, 10.0, 100.0])
    assert (low, high) == (2.0, 2.0)  # each item has the ratio 2: so has every resample


def test_pairing_sees_what_two_separate_intervals_cannot() -> None:
    hard = np.random.default_rng(4).normal(0, 10, 100)  # how hard each question is, for both
    better = hard + 1 + np.random.default_rng(5).normal(0, 0.5, 100)
    (low, high), other = mean_interval(better), mean_interval(hard)
    assert low < other[1] and other[0] < high
    assert mean_interval(better - hard)[0] > 0
