"""A run is a folder: its worker outlives the handle, stops when asked, and goes on where it was."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import PEOPLE, write_rows
from train_here import kill
from ui_events import events, write_run

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.exporting.metadata import metadata
from farense_qlora.training import run as run_module
from farense_qlora.training.checkpoints import measured
from farense_qlora.training.events import Finished, RateChanged, Saved, Started, Stepped
from farense_qlora.training.run import Run, all_runs
from farense_qlora.training.start import finished, start


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(run_module, "RUNS", tmp_path / "runs")
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, rank=4, batch_size=2, epochs=500.0,
        eval_every=10_000, save_every=10_000, learning_rate=1e-3,
    )  # fmt: skip


def steps(run: Run) -> list[int]:
    return [event.step for event in run.events() if isinstance(event, Stepped)]


def wait_for_steps(run: Run, count: int) -> None:
    for event in run.follow():
        if isinstance(event, Stepped) and event.step >= count:
            return


def test_a_run_stops_when_asked_saves_and_goes_on_from_there(config: Config) -> None:
    run = start(config, "um")
    wait_for_steps(run, 3)
    assert run.alive and Run.open("um").alive
    with pytest.raises(UserError, match="já está a decorrer"):
        start(config, "um")
    with pytest.raises(UserError, match=r"«um» está a decorrer neste computador.* ou pare-o"):
        start(config.changed(rank=8))  # a second training beside the first
    assert [one.name for one in all_runs()] == ["um"]
    run.stop()
    run.wait()
    stopped = steps(run)
    assert not run.alive and run.finished
    assert run.events()[-1].reason == "stopped" and stopped == list(range(1, len(stopped) + 1))

    with pytest.raises(UserError, match=r"outras definições .*\(rank: 4 → 8\)"):
        start(config.changed(rank=8), "um")
    again = start(config, "um")
    wait_for_steps(again, stopped[-1] + 2)
    again.stop()
    again.wait()
    assert steps(again) == list(range(1, len(steps(again)) + 1))
    assert [event.step for event in again.events() if isinstance(event, Started)] == [0, stopped[-1]]
    assert sum(isinstance(event, Finished) for event in again.events()) == 1


def test_an_interrupt_of_the_worker_ends_the_update_saves_and_evaluates(config: Config) -> None:
    run = start(config, "sinal")
    wait_for_steps(run, 2)
    assert run._worker is not None
    os.kill(run._worker.pid, signal.SIGINT)
    run.wait()
    end = run.events()[-1]
    assert end.reason == "stopped" and end.best_step == end.step
    assert measured(run.best_adapter, []) == {"step": end.step, "loss": end.best_loss}
    assert metadata(run)["metrics"]["val_loss"] == end.best_loss


def test_a_worker_that_is_told_to_end_at_once_saves_and_does_not_evaluate(config: Config) -> None:
    run = start(config, "já")
    wait_for_steps(run, 2)
    assert run._worker is not None
    os.kill(run._worker.pid, signal.SIGTERM)  # as a computer does that is switched off
    run.wait()
    end = run.events()[-1]
    assert end.reason == "stopped" and end.best_step == 0  # only the untrained adapter was measured
    assert run.best_adapter.name == f"step-{end.step:06d}"
    assert metadata(run)["metrics"]["val_loss"] is None  # and not that of another adapter


def test_a_worker_that_dies_without_a_word_is_noticed_and_its_lock_with_it(config: Config) -> None:
    run = start(config, "morto")
    wait_for_steps(run, 1)
    assert run._worker is not None
    kill(run)
    with pytest.raises(UserError, match="acabou sem aviso"):
        run.wait()
    assert not Run(run.folder).alive


def test_names_that_this_disk_does_not_tell_apart_are_refused(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_module.RUNS / "demo").mkdir(parents=True)
    monkeypatch.setattr(run_module.os, "listdir", lambda _: ["Demo"])  # as APFS would have it
    with pytest.raises(UserError, match="«demo» nas maiúsculas"):
        start(config, "demo")


def test_bad_data_reaches_the_caller_in_the_workers_words(config: Config, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": 1}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, linha 1"):
        start(config, "mau").wait()


def test_of_many_starts_at_once_one_trains_and_the_others_say_who(config: Config) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: attempt(config, "dois"), range(4)))
    runs = [run for run in started if isinstance(run, Run)]
    assert len(runs) == 1
    wait_for_steps(runs[0], 1)
    with pytest.raises(UserError, match=rf"já está a decorrer \(processo {runs[0]._worker.pid} em "):
        start(config, "dois")
    runs[0].stop()
    runs[0].wait()
    assert steps(runs[0]) == list(range(1, len(steps(runs[0])) + 1))


def attempt(config: Config, name: str) -> Run | UserError:
    try:
        return start(config, name)
    except UserError as error:
        return error


def test_a_cell_run_again_joins_the_live_worker_and_takes_up_a_dead_one(config: Config) -> None:
    config = config.changed(save_every=2)
    run = start(config)
    wait_for_steps(run, 3)
    assert start(config).folder == run.folder and len(all_runs()) == 1
    kill(run)
    assert run.status == "interrupted"
    again = start(config)
    assert again.folder == run.folder
    wait_for_steps(again, 5)
    again.stop()
    again.wait()
    assert steps(again) == list(range(1, len(steps(again)) + 1))
    other = start(config.changed(bits=16))
    assert re.fullmatch(r"mini-\d+-\d+", run.name) and re.fullmatch(r"mini-lora-\d+-\d+", other.name)
    other.stop()


def test_a_run_pauses_saves_and_changes_its_learning_rate_when_asked(config: Config) -> None:
    run = start(config.changed(warmup_ratio=0), "pausa")
    wait_for_steps(run, 2)
    run.pause()
    wait_until(lambda: run.status == "paused")
    paused = steps(run)
    saved = [event.step for event in run.events() if isinstance(event, Saved)]
    assert saved[-1] == paused[-1]
    run.set_learning_rate(5e-4)
    time.sleep(0.5)
    assert steps(run) == paused
    run.resume()
    wait_for_steps(run, paused[-1] + 2)
    run.save_now()
    wait_until(lambda: sum(isinstance(event, Saved) for event in run.events()) > len(saved) + 1)
    run.stop()
    run.wait()
    changed = [event for event in run.events() if isinstance(event, RateChanged)]
    assert [event.learning_rate for event in changed] == [5e-4] and run.status == "stopped"
    rates = {e.step: e.learning_rate for e in run.events() if isinstance(e, Stepped)}
    assert rates[changed[0].step + 1] < 0.6 * rates[changed[0].step]
    with pytest.raises(UserError, match="learning_rate"):
        run.set_learning_rate(-1)


def test_another_config_or_other_data_are_named_and_taken_only_on_request(config: Config) -> None:
    run = start(config, "outro")
    wait_for_steps(run, 1)
    run.stop()
    run.wait()
    rows = Path(config.train_data)
    rows.write_text(rows.read_text() + rows.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match=r"o ficheiro .*rows\.jsonl mudou"):
        start(config, "outro")
    with pytest.raises(UserError, match=r"dropout: 0 → 0,1"):
        start(config.changed(dropout=0.1), "outro")
    again = start(config.changed(dropout=0.1), "outro", accept_changes=True)
    again.stop()
    again.wait()
    assert again.status == "stopped" and again.config.dropout == 0.1
    wider = start(config.changed(rank=8), "outro", accept_changes=True)
    with pytest.raises(UserError, match="tem outra forma"):
        wider.wait()


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["../fora", "a/b", ".", "-x", ""])
def test_a_name_that_leaves_the_runs_folder_is_refused(config: Config, name: str) -> None:
    with pytest.raises(UserError, match="não serve de nome"):
        start(config, name)


def test_a_run_that_is_not_there_is_named(config: Config) -> None:
    with pytest.raises(UserError, match="«nada»"):
        Run.open("nada")


def test_a_half_written_last_line_waits_for_its_end(config: Config, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "meia"
    folder.mkdir(parents=True)
    line = Finished(
        step=1, time=time.time(), reason="completed", best_step=1, best_loss=0.5, seconds=1.0
    ).to_json()
    (folder / "events.jsonl").write_text(line + "\n" + line[: len(line) // 2])
    assert len(Run(folder).events()) == 1


def test_the_finished_run_is_the_newest_of_its_config_that_came_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    for began, (name, written, bits) in enumerate(
        (
            ("velho", events(), 4),
            ("novo", events(), 4),
            ("parado", events(30, "stopped"), 4),
            ("z", events(), 16),
        )
    ):
        write_run(tmp_path / name, [replace(written[0], time=began), *written[1:]], bits=bits)
    (tmp_path / "z" / "config.json").write_text("{}x", encoding="utf-8")
    found = finished(Config.of("mini", bits=4))
    assert found is not None and found.name == "novo"
    assert finished(Config.of("mini", bits=4, rank=9)) is None


def test_runs_go_by_when_they_began_whatever_is_written_into_their_folders_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    now = time.time()
    for name, began in (("segundo", now - 50), ("primeiro", now - 100)):
        write_run(tmp_path / name, [replace(event, time=began) for event in events()])
    write_run(tmp_path / "acabado de criar", [])
    assert [run.name for run in all_runs()] == ["acabado de criar", "segundo", "primeiro"]
    (tmp_path / "primeiro" / "evaluation.json").write_text("{}")
    shutil.copytree(tmp_path / "segundo", tmp_path / "cópia")
    assert [run.name for run in all_runs()] == ["acabado de criar", "segundo", "cópia", "primeiro"]


def test_the_best_adapter_is_known_without_reading_checkpoints_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "feito", events())
    (run.folder / "best").mkdir()

    def read(folder: Path) -> Path:
        raise AssertionError(f"{folder}: hundreds of megabytes")

    monkeypatch.setattr(run_module, "latest", read)
    assert run.best_adapter == run.folder / "best"


def test_whoever_follows_a_run_sees_it_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "outra vez", events(60)[:30])
    again = [replace(events(5)[0], time=99.0), *events(5)[1:]]
    alive = iter([True, True, False])
    monkeypatch.setattr(Run, "alive", property(lambda _: next(alive)))
    followed = run.follow()
    seen = [next(followed) for _ in range(30)]
    (run.folder / "events.jsonl").unlink()  # as `start` does when there is no checkpoint
    write_run(run.folder, again)
    assert seen == events()[:30] and list(followed) == again
    assert run.events() == again


def test_a_run_tells_its_history_its_numbers_and_its_gap(tmp_path: Path) -> None:
    run = write_run(tmp_path / "feito", events())
    assert len(run.history) == 61 and run.numbers.step == 60 and run.gap.verdict == "bom"
