"""One run folder, one set of numbers: whoever shows a run shows these."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from io import StringIO
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest
from rich.console import Console
from ui_events import events, write_run

from farense_qlora.config import Config
from farense_qlora.training import run as run_module
from farense_qlora.training.events import Failed
from farense_qlora.training.overview import differences, overview, runs, runs_text
from farense_qlora.training.run import Run
from farense_qlora.ui.live import state
from farense_qlora.ui.monitor import screen
from farense_qlora.ui.report import report


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that is half done, in a folder of runs of its own."""
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    return write_run(tmp_path / "meio", events(42)[:-1], rank=4, learning_rate=5e-4)


def test_a_dead_worker_has_no_time_left(tmp_path: Path) -> None:
    assert overview(write_run(tmp_path / "morto", events()[:30])).seconds_left is None


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
        assert re.search(rf"<small>{name}</small><br><b [^>]*>{re.escape(value)}</b>", notebook)
    (cells,) = runs().cells()
    shown = now.labelled()
    assert {shown["passo"], shown["melhor validação"], shown["distância"], shown["tempo"]} <= set(cells)


def test_the_table_of_runs_names_differences_and_survives_a_config_that_cannot_be_read(
    run: Run, tmp_path: Path
) -> None:
    text = runs_text([overview(run)])
    assert "rank=4" in text and "interrompido" in text
    (run.folder / "config.json").write_text("{}x", encoding="utf-8")
    row = overview(run)
    assert (row.profile, row.step) == ("?", 42)
    json.dumps(asdict(row))


def test_the_table_of_runs_sorts_as_numbers_and_draws_what_is_not_known(run: Run, tmp_path: Path) -> None:
    write_run(tmp_path / "novo", [])
    write_run(tmp_path / "todo", events(), dropout=0.5)
    table = runs()
    assert table.sort_values("passo")["treino"].tolist() == ["novo", "meio", "todo"]
    assert table.sort_values("melhor validação")["treino"].tolist() == ["todo", "meio", "novo"]
    assert table.sort_values("tokens", ascending=False)["treino"].tolist() == ["todo", "meio", "novo"]
    (new,) = table[table["treino"] == "novo"].cells()
    assert new[:6] == ["novo", "por começar", "mini", "0 / 0", "—", "—"]
    long = overview(write_run(tmp_path / "longo", [], model="m" * 60))
    assert "m…" in runs_text([long]) and "m" * 60 in runs([long])._repr_html_()
    assert runs_text([]).startswith("ainda não há treinos")


def test_attempts_that_never_trained_stand_in_one_line_below_the_others(run: Run, tmp_path: Path) -> None:
    failed = Failed(step=0, time=1.0, message="não há memória")
    for name, written in (("a", [failed]), ("b", events(0)[:1]), ("falhou", [*events(7)[:-1], failed])):
        write_run(tmp_path / name, written)
    write_run(tmp_path / "parado", [*events(0)[:-1], events(0, "stopped")[-1]])
    table = runs()
    assert set(table["treino"]) == {"meio", "falhou", "parado"}
    line = "e 2 tentativas que não chegaram a treinar: a, b"
    rows = [overview(one) for one in run_module.all_runs()]
    assert runs_text(rows).splitlines()[-1] == line and f"<p>{line}</p>" in table._repr_html_()
    assert runs([overview(Run(tmp_path / "b"))]).note == "e 1 tentativa que não chegou a treinar: b"
    assert runs([overview(run)]).note == ""


def test_an_overview_survives_checkpoints_that_come_and_go(run: Run) -> None:
    done = Event()

    def rotate() -> None:
        for number in count():
            if done.is_set():
                return
            folder = run.folder / "checkpoints" / f"step-{number:06d}"
            folder.mkdir(parents=True)
            for name in range(20):
                (folder / str(name)).write_bytes(b"x" * 100)
            shutil.rmtree(folder)

    worker = Thread(target=rotate)
    worker.start()
    try:
        for _ in range(100):
            overview(run)
    finally:
        done.set()
        worker.join()
    assert overview(run).bytes == sum(path.stat().st_size for path in run.folder.iterdir() if path.is_file())


def test_to_look_at_runs_neither_mlx_nor_a_library_of_models_is_loaded() -> None:
    look = "import sys, farense_qlora.training.overview, farense_qlora.ui.monitor; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert "farense_qlora.training.run" in loaded.split()
    assert not {"mlx.core", "mlx_lm", "transformers", "torch"} & set(loaded.split())
