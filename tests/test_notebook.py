"""The notebooks as committed: no outputs, short cells, and every name they import exists."""

import ast
import importlib
from pathlib import Path

import nbformat
import pytest

from farense_qlora.config import HOME

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
