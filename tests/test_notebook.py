"""The notebooks as committed: no outputs, short cells, and every name they import exists."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from headless import execute

import farense_qlora as fq
from farense_qlora.config import HOME
from farense_qlora.training.events import Finished
from farense_qlora.training.run import Run

NOTEBOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))


def committed(path: Path) -> nbformat.NotebookNode:
    """The notebook as `git add` took it last: whoever has used one may have saved it."""
    shown = subprocess.run(["git", "show", f":{path.relative_to(HOME)}"], cwd=HOME, capture_output=True)
    text = path.read_bytes() if shown.returncode else shown.stdout  # without git, or new
    return nbformat.reads(text.decode(), 4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    """Without those of the command line, which are no Python."""
    cells = [cell for cell in committed(path).cells if cell.cell_type == "code"]
    return [cell for cell in cells if not cell.source.startswith("%")]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_short_and_without_outputs(path: Path) -> None:
    for cell in code_cells(path):
        assert not cell.outputs and cell.execution_count is None
        assert len(cell.source.splitlines()) <= 8, cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_hold_calls_and_no_logic(path: Path) -> None:
    for cell in code_cells(path):
        logic = (ast.For, ast.While, ast.If, ast.FunctionDef, ast.ClassDef, ast.Try, ast.comprehension)
        assert not any(isinstance(node, logic) for node in ast.walk(ast.parse(cell.source))), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_but_the_front_door_is_imported_and_its_names_exist(path: Path) -> None:
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                assert [name.name for name in node.names] == ["farense_qlora"], ast.unparse(node)
            assert not isinstance(node, ast.ImportFrom), ast.unparse(node)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fq":
                assert node.attr in fq.__all__, node.attr


def test_all_cells_together_are_less_than_sixty_lines() -> None:
    for path in NOTEBOOKS:
        cells = [cell.source for cell in committed(path).cells if cell.cell_type == "code"]
        assert sum(len(source.splitlines()) for source in cells) < 60


def test_the_cell_that_prepares_the_data_goes_on_with_a_persons_rows(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copytree(HOME / "data" / "facts", tmp_path / "data" / "facts")
    (cell,) = [cell for cell in code_cells(NOTEBOOKS[1]) if cell.id == "preparar"]
    done = subprocess.run(
        [sys.executable, "-c", f"import farense_qlora as fq; print({cell.source})"],
        env={**os.environ, "FARENSE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "há linhas suas em train_data.jsonl, val_data.jsonl, unseen_facts.jsonl: ficam" in done.stdout
    for name in ("train_data.jsonl", "val_data.jsonl", "unseen_facts.jsonl"):
        assert (tmp_path / "data" / name).read_bytes() == (home / "data" / name).read_bytes()


@pytest.mark.parametrize(
    ("notebook", "bits"), list(zip(NOTEBOOKS, ((4, 16), (4,)), strict=True)), ids=("lora", "qlora")
)
def test_a_notebook_runs_headless_with_settings_from_the_environment(
    home: Path, tmp_path: Path, notebook: Path, bits: tuple[int, ...]
) -> None:
    mine = tmp_path / "home"
    shutil.copytree(home / "data", mine / "data")
    shutil.copytree(HOME / "data" / "facts", mine / "data" / "facts")
    done = subprocess.run(
        [sys.executable, HOME / "notebooks" / "headless.py", notebook, tmp_path / "out"],
        env={
            **os.environ,
            **{"FARENSE_HOME": str(mine), "FARENSE_PROFILE": "mini"},
            **{"FARENSE_MAX_STEPS": "3", "FARENSE_BATCH_SIZE": "4", "FARENSE_PROBES": "0"},
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    runs = [Run(folder) for folder in sorted((mine / "checkpoints_qlora").glob("mini-*"))]
    settings = [(run.config.bits, run.config.max_steps, run.config.batch_size) for run in runs]
    assert settings == [(number, 3, 4) for number in bits]
    for run in runs:
        end = run.events()[-1]
        assert isinstance(end, Finished) and (end.step, end.reason) == (3, "completed")
    rows = "train_data.jsonl"  # the person's: the notebook has gone on with them
    assert (mine / "data" / rows).read_bytes() == (home / "data" / rows).read_bytes()
    cells = [cell for cell in nbformat.read(tmp_path / "out" / notebook.name, 4).cells if cell.get("outputs")]
    shown = json.dumps(cells)
    assert "um painel que" in shown and " controlos." not in shown
    assert "certas depois" in shown and ("QLoRA face a LoRA" in shown) == (len(bits) == 2)
    assert [out.text for cell in cells for out in cell.outputs if out.get("name") == "stderr"] == []


BEGIN_PAUSED = """
import sys, farense_qlora as fq
fq.start(fq.Config.of("mini", bits=int(sys.argv[1]), batch_size=4, probes=0, epochs=900), "vivo").pause()
"""


@pytest.mark.parametrize(
    ("notebook", "bits"), list(zip(NOTEBOOKS, (16, 4), strict=True)), ids=("lora", "qlora")
)
def test_run_from_the_top_beside_its_training_a_notebook_joins_it_and_loads_no_model(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notebook: Path, bits: int
) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copytree(HOME / "data" / "facts", tmp_path / "data" / "facts")
    monkeypatch.setenv("FARENSE_HOME", str(tmp_path))
    subprocess.run([sys.executable, "-c", BEGIN_PAUSED, str(bits)], check=True)
    (run,) = (Run(folder) for folder in (tmp_path / "checkpoints_qlora").glob("*/"))
    book = committed(notebook)
    ids = [cell.id for cell in book.cells]
    doctor = nbformat.v4.new_code_cell("import farense_qlora as fq")  # without what it computes
    look = nbformat.v4.new_code_cell("import mlx.core as mx\nprint(run.name, mx.get_peak_memory() // 1e6)")
    above = [cell for cell in book.cells[: ids.index("treino") + 1] if cell.id != "ambiente"]
    book.cells = [doctor, *above, look]
    try:
        execute(book, notebook.parent)
        assert run.alive and look.outputs[0].text == "vivo 0.0\n"
    finally:
        run.stop()
        run.wait()
