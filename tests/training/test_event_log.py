"""What a run has said counts once, whenever its worker died, and each line of its log is read once."""

from contextlib import closing
from pathlib import Path
from typing import Any

from farense_qlora.training.event_log import NAME, EventReader, EventWriter, replay
from farense_qlora.training.events import (
    Evaluated,
    Event,
    Finished,
    RolledBack,
    Sampled,
    Saved,
    Skipped,
    Started,
    Stepped,
    best_of,
    last,
    of,
)


def started(step: int, time: float = 0.0) -> Started:
    return Started(
        step=step,
        time=time,
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
        assert kinds(replay([*before, stepped(step + 1), *again])) == kinds([*before, *again])


def test_an_evaluation_done_again_before_the_first_checkpoint_stands_once() -> None:
    again = [started(0), *evaluated(0), Saved(step=0, time=0.0, path="x")]
    assert kinds(replay([started(0), *evaluated(0), *again])) == [(Started, 0), *kinds(again)]


def saved(step: int) -> Saved:
    return Saved(step=step, time=0.0, path=f"checkpoints/step-{step:06d}")


def test_what_came_after_the_checkpoint_that_training_went_on_from_is_undone() -> None:
    begun = [started(0), *evaluated(0), saved(0), stepped(1), stepped(2), saved(2)]
    lost = [stepped(3), *evaluated(3)]
    again = [started(2), saved(2), stepped(3), stepped(4)]
    assert kinds(replay([*begun, *lost, *again])) == kinds([*begun[:-1], *again])


def test_a_roll_back_undoes_updates_and_keeps_what_it_was_for() -> None:
    bad = Skipped(step=4, time=0.0, epoch=0.6, cause="não é número", rows=("a:1",))
    back = RolledBack(step=2, time=0.0, path="checkpoints/step-000002", learning_rate=5e-4)
    begun = [started(0), stepped(1), stepped(2), saved(2)]
    events = [*begun, stepped(3), *evaluated(3), saved(3), bad, back, stepped(3), *evaluated(3)]
    assert kinds(replay(events)) == kinds([*begun, bad, back, stepped(3), *evaluated(3)])


def test_events_are_picked_by_their_kind() -> None:
    events = [started(0), *evaluated(0), stepped(1), stepped(2)]
    assert of(events, Stepped) == events[-2:] and last(events, Stepped, Sampled) == events[-1]
    assert last(events, Finished) is None and best_of(events) == events[1] and best_of([]) is None


def append(folder: Path, *events: Event) -> None:
    with closing(EventWriter(folder)) as log:
        for event in events:
            log.write(event)


def test_each_event_is_read_once_and_those_that_count_are_kept(tmp_path: Path) -> None:
    reader = EventReader(tmp_path)
    assert reader.poll() == [] and reader.events == []
    append(tmp_path, started(0), stepped(1))
    assert reader.poll() == [started(0), stepped(1)] and reader.poll() == []
    append(tmp_path, started(0), stepped(1))
    assert reader.poll() == [started(0), stepped(1)]  # also what was done again
    assert kinds(reader.events) == [(Started, 0), (Started, 0), (Stepped, 1)]


def test_a_torn_line_waits_for_its_end_and_one_that_is_no_event_is_passed_over(tmp_path: Path) -> None:
    reader, line = EventReader(tmp_path), stepped(2).to_json()
    (tmp_path / NAME).write_text(f"{started(0).to_json()}\nlixo\n{{}}\n[]\n{line[:20]}")
    assert reader.poll() == [started(0)]
    with open(tmp_path / NAME, "a") as file:
        file.write(line[20:] + "\n")
    assert reader.poll() == [stepped(2)]
    with open(tmp_path / NAME, "a") as file:
        file.write(line[:20])
    append(tmp_path, stepped(3))  # whoever writes cuts a torn line off
    assert reader.poll() == [stepped(3)]


def test_a_log_that_was_begun_again_is_read_from_its_first_event(tmp_path: Path) -> None:
    for again in ([started(0, time=2.0)], [started(0, time=2.0), *map(stepped, range(1, 9))]):
        append(tmp_path, started(0, time=1.0), stepped(1))
        reader = EventReader(tmp_path)
        reader.poll()
        (tmp_path / NAME).unlink()
        append(tmp_path, *again)  # which often has the inode of the one that is gone
        assert reader.poll() == again == reader.events
        (tmp_path / NAME).unlink()


def test_a_log_is_replayed_in_a_time_that_grows_with_its_length() -> None:
    events = [event for step in range(20_000) for event in (stepped(step), *evaluated(step))]
    assert replay(events) == events
