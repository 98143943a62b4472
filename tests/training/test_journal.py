"""What a run has said counts once, whenever its worker died."""

from typing import Any

from farense_qlora.training.events import Evaluated, Event, Sampled, Saved, Started, Stepped
from farense_qlora.training.journal import settled


def started(step: int) -> Started:
    return Started(
        step=step,
        time=0.0,
        total_steps=24,
        steps_per_epoch=6.0,
        train_rows=9,
        val_rows=3,
        truncated_rows=0,
        trainable_parameters=10,
        total_parameters=100,
    )


def stepped(step: int) -> Stepped:
    return Stepped(
        step=step,
        time=0.0,
        epoch=step / 6,
        loss=1.0,
        learning_rate=1e-3,
        grad_norm=0.5,
        supervised_tokens=8,
        tokens=16,
        positions=16,
        seconds=0.1,
        peak_memory_gb=0.1,
    )


def evaluated(step: int) -> list[Event]:
    return [
        Evaluated(step=step, time=0.0, epoch=step / 6, loss=1.0, best=True, seconds=0.1),
        Sampled(step=step, time=0.0, questions=("?",), expected=("!",), answers=("…",)),
    ]


def kinds(events: list[Event]) -> list[tuple[Any, int]]:
    return [(type(event), event.step) for event in events]


def test_a_worker_that_died_between_the_saving_and_the_saying_undoes_only_what_came_later() -> None:
    for step in (0, 2):
        before = [started(0), *map(stepped, range(1, step + 1)), *evaluated(step)]
        again = [started(step), Saved(step=step, time=0.0, path="x"), stepped(step + 1)]
        assert kinds(settled([*before, stepped(step + 1), *again])) == kinds([*before, *again])


def test_an_evaluation_done_again_before_the_first_checkpoint_stands_once() -> None:
    again = [started(0), *evaluated(0), Saved(step=0, time=0.0, path="x")]
    assert kinds(settled([started(0), *evaluated(0), *again])) == [(Started, 0), *kinds(again)]
