"""One run folder, one set of numbers: whoever shows a run shows these."""

import json
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from ui_events import events, write_run

from farense_qlora.config import Config
from farense_qlora.training import run as run_module
from farense_qlora.training.events import Evaluated, Failed, Paused, Resumed, Skipped, Stepped
from farense_qlora.training.overview import columns, differences, numbers, overview, overview_text, overviews
from farense_qlora.training.run import Run
from farense_qlora.ui.live import state
from farense_qlora.ui.monitor import screen
from farense_qlora.ui.report import report
from farense_qlora.ui.runs import runs_table


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is half done, in a folder of runs of its own."""
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    return write_run(tmp_path / "meio", events(42)[:-1], rank=4, learning_rate=5e-4)


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


def test_a_dead_worker_has_no_time_left(tmp_path: Path) -> None:
    assert overview(write_run(tmp_path / "morto", events()[:30])).seconds_left is None


def test_nothing_is_known_before_the_first_update_and_skipped_updates_count() -> None:
    shown = numbers(events()[:1]).labelled()
    assert shown["passo"] == "0 / 60" and shown["perda de treino"] == shown["tokens/s"] == "—"
    now = numbers(
        [*events()[:30], Skipped(step=29, time=0.0, epoch=1.4, cause="não é número", rows=("a:1",))]
    )
    assert now.step == 29 and now.labelled()["saltadas"] == "1"


def test_only_settings_that_differ_from_the_profile_are_named() -> None:
    assert differences(Config.of("mistral-7b")) == {}
    assert differences(Config.of("mini", rank=4)) == {"rank": 4}


def test_notebook_monitor_report_and_table_show_the_same_numbers(run: Run, tmp_path: Path) -> None:
    now = overview(run)
    console = Console(width=100, record=True, file=StringIO())
    console.print(screen(now, run.events(), 100, 30))
    terminal = console.export_text()
    page = report(run, tmp_path / "out").read_text(encoding="utf-8")
    notebook = state(run.events())
    for name, value in now.labelled().items():
        assert f"{name}: {value}" in terminal
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
        assert f"<small>{name}</small><br><b>{value}</b>" in notebook
    (row,) = runs_table().rows
    row = tuple(cell.replace("\u00a0", " ").replace("\u200b", "") for cell in row)
    assert row == columns(now)
    shown = now.labelled()
    assert {shown["passo"], shown["melhor validação"], shown["distância"], shown["tempo"]} <= set(row)


def test_the_table_of_runs_names_differences_and_survives_a_config_that_cannot_be_read(
    run: Run, tmp_path: Path
) -> None:
    assert "rank=4" in overview_text(overviews()) and "interrompido" in overview_text(overviews())
    (run.folder / "config.json").write_text("{}x", encoding="utf-8")
    (row,) = overviews()
    assert (row.profile, row.step) == ("?", 42)
    json.dumps(asdict(row))
