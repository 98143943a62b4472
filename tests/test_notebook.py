"""The notebooks as committed: no outputs, short cells, and every name they import exists."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from farense_qlora.config import HOME
from farense_qlora.training.events import Finished
from farense_qlora.training.run import Run

NOTEBOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


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
def test_every_imported_name_exists(path: Path) -> None:
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_the_cell_that_prepares_the_data_goes_on_with_a_persons_rows(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copytree(HOME / "data" / "facts", tmp_path / "data" / "facts")
    (cell,) = [cell for cell in code_cells(NOTEBOOKS[1]) if cell.id == "preparar"]
    done = subprocess.run(
        [sys.executable, "-c", cell.source],
        env={**os.environ, "FARENSE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "há linhas suas em train_data.jsonl, val_data.jsonl, unseen_facts.jsonl: ficam" in done.stdout
    for name in ("train_data.jsonl", "val_data.jsonl", "unseen_facts.jsonl"):
        assert (tmp_path / "data" / name).read_bytes() == (home / "data" / name).read_bytes()


@pytest.mark.parametrize(
    ("notebook", "bits"), list(zip(NOTEBOOKS, ((16, 4), (4,)), strict=True)), ids=("lora", "qlora")
)
def test_a_notebook_runs_headless_with_settings_from_the_environment(
    home: Path, tmp_path: Path, notebook: Path, bits: tuple[int, ...]
) -> None:
    mine = tmp_path / "home"
    shutil.copytree(home / "data", mine / "data")
    shutil.copytree(HOME / "data" / "facts", mine / "data" / "facts")
    done = subprocess.run(
        [sys.executable, "-m", "farense_qlora.ui.headless", notebook, tmp_path / "out"],
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
    assert "Certas depois" in shown and ("QLoRA face a LoRA" in shown) == (len(bits) == 2)
    assert [out.text for cell in cells for out in cell.outputs if out.get("name") == "stderr"] == []
