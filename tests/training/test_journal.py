"""What a run has said counts once, whenever its worker died."""

from typing import Any

from farense_qlora.training.events import Evaluated, Event, Sampled, Saved, Started, Stepped
from farense_qlora.training.journal import settled


def started(step: int) -> Started:
    return Started(step, 0.0, 24, 6.0, 9, 3, 0, 10, 100)


def stepped(step: int) -> Stepped:
    return Stepped(step, 0.0, step / 6, 1.0, 1e-3, 0.5, 8, 16, 16, 0.1, 0.1)


def evaluated(step: int) -> list[Event]:
    return [Evaluated(step, 0.0, step / 6, 1.0, True, 0.1), Sampled(step, 0.0, ("?",), ("!",), ("…",))]


def kinds(events: list[Event]) -> list[tuple[Any, int]]:
    return [(type(event), event.step) for event in events]


def test_a_worker_that_died_between_the_saving_and_the_saying_undoes_only_what_came_later() -> None:
    for step in (0, 2):
        before = [started(0), *map(stepped, range(1, step + 1)), *evaluated(step)]
        again = [started(step), Saved(step, 0.0, "x"), stepped(step + 1)]
        assert kinds(settled([*before, stepped(step + 1), *again])) == kinds([*before, *again])


def test_an_evaluation_done_again_before_the_first_checkpoint_stands_once() -> None:
    again = [started(0), *evaluated(0), Saved(0, 0.0, "x")]
    assert kinds(settled([started(0), *evaluated(0), *again])) == [(Started, 0), *kinds(again)]
