"""The numbers of a run are a fold over its events: losses, speed, time left, and the gap with its verdict."""

from dataclasses import replace

import pytest
from ui_events import events

from farense_qlora.training.events import (
    Evaluated,
    Failed,
    Paused,
    Resumed,
    RolledBack,
    Skipped,
    Spiked,
    Started,
    Stepped,
)
from farense_qlora.training.numbers import generalization_gap, history, numbers


def run(train_loss: float, val_loss: float) -> list:
    steps = [
        Stepped(
            step=n,
            time=0.0,
            epoch=n / 8,
            loss=9.0 if n < 6 else train_loss,
            learning_rate=0.1,
            grad_norm=1.0,
            supervised_tokens=10,
            tokens=30,
            positions=32,
            seconds=0.1,
            peak_memory_gb=0.1,
        )
        for n in range(1, 9)
    ]
    return [*steps, Evaluated(step=8, time=0.0, epoch=1.0, loss=val_loss, best=True, seconds=0.1)]


@pytest.mark.parametrize(
    ("val_loss", "verdict"),
    [(0.4, "excelente"), (0.54, "excelente"), (0.6, "bom"), (0.7, "moderado"), (0.9, "crítico")],
)
def test_the_verdict_follows_the_gap(val_loss: float, verdict: str) -> None:
    result = generalization_gap(run(0.5, val_loss))
    assert result.verdict == verdict
    assert result.gap == pytest.approx(val_loss - 0.5) and result.train_loss == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("val_loss", "from_adapter", "verdict"),
    [
        (0.55, "", "aprendeu pouco"),
        (0.31, "", "aprendeu pouco"),
        (0.29, "", "excelente"),
        (0.9, "", "aprendeu pouco"),
        (0.55, "um", "excelente"),
    ],
)
def test_a_model_that_learnt_next_to_nothing_is_neither_praised_nor_blamed(
    val_loss: float, from_adapter: str, verdict: str
) -> None:
    began = replace(
        next(event for event in events() if isinstance(event, Started)), from_adapter=from_adapter
    )
    base = Evaluated(step=0, time=0.0, epoch=0.0, loss=0.6, best=True, seconds=0.1)
    assert generalization_gap([began, base, *run(0.51, val_loss)]).verdict == verdict


def test_there_is_none_before_the_first_evaluation() -> None:
    result = generalization_gap(run(0.5, 0.5)[:-1])
    assert result.gap is None and result.verdict is None
    for text in (repr(result), result._repr_html_()):
        assert "o treino acabou antes da primeira avaliação" in text


def test_the_gap_draws_itself() -> None:
    result = generalization_gap(run(0.5, 0.6))
    for text in (repr(result), result._repr_html_()):
        assert "Distância entre treino e validação" in text and "0,100" in text and "bom" in text


def test_the_numbers_are_those_of_the_last_updates() -> None:
    now = numbers(events()[:50])
    steps = [event for event in events()[:50] if isinstance(event, Stepped)]
    assert (now.step, now.total_steps, now.loss) == (len(steps), 60, steps[-1].loss)
    assert now.tokens_per_s == 600 and now.tokens == 300 * len(steps)
    evaluations = [event for event in events()[:50] if isinstance(event, Evaluated)]
    assert (now.val_loss, now.checkpoint) == (evaluations[-1].loss, evaluations[-1].step)
    assert now.seconds_left == pytest.approx((60 - now.step) * 0.5, rel=0.02)


def test_the_best_loss_need_not_be_the_last() -> None:
    worse = Evaluated(step=60, time=0.0, epoch=3.0, loss=9.0, best=False, seconds=0.1)
    now = numbers([*events()[:-1], worse])
    assert (now.val_loss, now.best_step) == (9.0, 60) and now.best_loss is not None and now.best_loss < 1


def test_what_ended_has_no_time_left() -> None:
    assert numbers(events()).seconds_left is None
    assert numbers([*events()[:30], Failed(step=0, time=0.0, message="acabou")]).seconds_left is None
    assert "tempo que falta" in numbers(events()[:30]).labelled()
    paused = [*events()[:30], Paused(step=29, time=0.0, cause="asked")]
    assert numbers(paused).seconds_left is None
    assert numbers([*paused, Resumed(step=29, time=0.0)]).seconds_left is not None
    assert "tempo que falta" not in numbers(events()).labelled()


def test_nothing_is_known_before_the_first_update_and_skipped_updates_count() -> None:
    shown = numbers(events()[:1]).labelled()
    assert "português em geral" not in shown  # of a run of an older version
    assert shown["passo"] == "0 / 60" and shown["perda de treino"] == shown["tokens/s"] == "—"
    now = numbers(
        [*events()[:30], Skipped(step=29, time=0.0, epoch=1.4, cause="não é número", rows=("a:1",))]
    )
    assert now.step == 29 and now.labelled()["saltadas"] == "1"


def test_after_a_roll_back_the_step_is_the_one_that_training_went_back_to() -> None:
    bad = [Skipped(step=step, time=0.0, epoch=1.5, cause="x", rows=()) for step in (30, 31)]
    back = RolledBack(step=20, time=0.0, path="x", learning_rate=5e-4)
    now = numbers([*events(20)[:-1], *bad, back, Spiked(step=20, time=0.0, loss=9.0, bound=1.0)])
    assert (now.step, now.skipped, now.rollbacks, now.spikes) == (20, 2, 1, 1)


def test_the_history_has_a_row_an_update_with_the_validation_loss_beside_it() -> None:
    table = history(events(40))
    assert table["step"].tolist() == list(range(41)) and table["val_loss"].count() == 3
    measured = table[table["val_loss"].notna()]
    assert measured["step"].tolist() == [0, 20, 40] and measured["loss"].isna().tolist() == [
        True,
        False,
        False,
    ]
    row = table.iloc[20]
    assert (row["epoch"], row["loss"], row["tokens_per_s"], row["seconds"]) == (1.0, 0.5, 600, 0.5)
    assert "1·10⁻³" in repr(table) and "—" in repr(measured) and "nan" not in measured._repr_html_()
    assert history([]).empty


def test_each_of_several_computers_has_its_own_numbers() -> None:
    began, *rest = events(10)
    rest = [
        replace(one, host_speeds=(1200.4, 800.0), host_memory_gb=(6.1, 4.0))
        if isinstance(one, Stepped)
        else one
        for one in rest
    ]
    now = numbers([replace(began, hosts=("mac1", "mac2")), *rest])
    assert now.hosts == (("mac1", 1200.4, 6.1), ("mac2", 800.0, 4.0))
    shown = now.labelled()
    assert (shown["mac1"], shown["mac2"]) == ("1\u202f200 tokens/s, 6,10 GB", "800 tokens/s, 4,00 GB")
    assert "mac1" not in numbers([began, *rest]).labelled()
