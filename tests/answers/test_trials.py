"""Trials find the better settings, leave the hopeless ones early, and go on where they were cut off."""

import time
from pathlib import Path

import psutil
import pytest
from tiny import PEOPLE, write_rows
from trial_files import write_trials

from farense_qlora.answers import trials as module
from farense_qlora.answers.trials import Trials, newest, trials
from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training import run as run_module
from farense_qlora.training.events import Evaluated, Stepped, of
from farense_qlora.ui.panel import Panel


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """One that learns too slowly; the runs lie in a folder of the test's own."""
    monkeypatch.setenv("FARENSE_HOME", str(tmp_path))
    monkeypatch.setattr(run_module, "RUNS", tmp_path / "checkpoints_qlora")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "checkpoints_qlora" / ".ensaios")
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, batch_size=8, epochs=900.0,
        learning_rate=1e-6, rank=2, probes=0,
    )  # fmt: skip


def worker(trials: Trials) -> psutil.Process:
    """The process that works through `trials`."""
    return next(
        p for p in psutil.process_iter(["cmdline"]) if str(trials.folder) in (p.info["cmdline"] or [])
    )


def test_the_best_settings_are_found_though_the_worker_was_killed(config: Config) -> None:
    found = trials(config, learning_rate=[1e-6, 5e-3], rank=[8])
    with pytest.raises(UserError, match="ainda estão a decorrer"):
        trials(config, rank=[4])
    while not found.results:
        time.sleep(0.1)
    worker(found).kill()
    found.wait()
    assert "parados" in repr(found) and len(found.results) < 3

    found = trials().wait()  # goes on with them
    assert found.best == config.changed(learning_rate=5e-3, rank=8)
    assert [(result.trial, result.rung) for result in found.results] == [
        (0, 0),
        (1, 0),
        (1, 2),
    ]
    updates = [of(run.events(), Stepped)[-1].step for run in found.runs]
    assert updates[1] == 900 and 100 <= updates[0] < 300
    at = {event.step: event.loss for event in of(found.runs[1].events(), Evaluated)}
    assert found.results[-1].loss == pytest.approx(min(at.values()), rel=1e-4)
    assert found.table()["veredicto"].tolist() == ["recomendada", "pior"]

    panel = Panel("mini", model=config.model)
    panel.show_best()
    assert panel.config.learning_rate == 5e-3
    assert newest().folder == found.folder


def test_trials_that_are_stopped_go_on_from_where_they_were(config: Config) -> None:
    found = trials([config.changed(epochs=400.0)])
    while not (found.runs and of(found.runs[0].events(), Stepped)):
        time.sleep(0.1)
    found.stop()
    found.wait()
    assert found.results == [] and found.next == (0, 0) and found.runs[0].status == "stopped"
    reached = of(found.runs[0].events(), Stepped)[-1].step
    assert 0 < reached < 400
    trials().wait()
    assert found.next is None and [one.step for one in of(found.runs[0].events(), Stepped)] == [
        *range(1, 401)
    ]


def test_a_list_of_settings_is_trained_whole_and_one_that_fails_says_why(config: Config) -> None:
    short = config.changed(epochs=2.0)
    found = trials([short, short.changed(target_modules=("nada",))]).wait()
    good, bad = found.results
    assert (good.step, good.failed, bad.rung) == (2, "", 0) and "nada" in bad.failed
    assert found.best == short and "nada" in repr(found)


def test_what_cannot_be_told_apart_is_within_the_noise(tmp_path: Path) -> None:
    best = [1.0, 2.0, 3.0, 4.0] * 20
    alike = [1.3, 1.8, 3.2, 3.8] * 20
    worse = [loss + 1 for loss in best]
    found = write_trials(tmp_path / "a", (0, 0, worse), (1, 0, alike), (2, 0, best), (2, 1, best))
    table = found.table()
    assert table["Rank"].tolist() == [8, 4, 2]
    assert table["veredicto"].tolist() == ["recomendada", "dentro do ruído", "pior"]
    assert table["a mais do que a melhor [95 %]"].tolist()[2] == "0,100 [0,100; 0,100]"
    assert found.next is None and found.best.rank == 8
    assert write_trials(tmp_path / "c", (0, 0, worse), (1, 0, alike), (2, 0, best)).next == (2, 1)
    nothing = write_trials(tmp_path / "b")
    assert nothing.table()["veredicto"].tolist() == ["por fazer"] * 3
    with pytest.raises(UserError, match="ainda não mediram nada"):
        _ = nothing.best


def test_without_trials_it_is_said_how_to_begin(config: Config) -> None:
    with pytest.raises(UserError, match="ainda não há ensaios"):
        newest()
