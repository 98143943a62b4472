"""A notebook runs in a real kernel, leaves its copies, and its errors become exit codes."""

import re
from pathlib import Path

import nbformat
import pytest
from headless import CONTROLS, SHOWN, drop_widgets, main

from farense_qlora.config import HOME

VIEW = "application/vnd.jupyter.widget-view+json"


def write(path: Path, *cells: str) -> Path:
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_markdown_cell("## Contas"), *map(nbformat.v4.new_code_cell, cells)]
    book.cells[-1].metadata["tags"] = ["resultado"]
    nbformat.write(book, path)
    return path


def test_the_result_is_printed_and_both_copies_are_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widget = "import ipywidgets as w\nw.Text(description='eco')"
    assert main(write(tmp_path / "n.ipynb", widget, "x = 20 + 22\nx"), tmp_path / "out") == 0
    assert "\n42\n" in capsys.readouterr().out
    page = (tmp_path / "out" / "n.html").read_text()
    assert "42" in page and "Text(value" not in page and CONTROLS.format("controlos") in page
    assert not re.search(r"""(src=|import\(?|from)\s*["']https?:""", page)
    assert '<html lang="pt-PT">' in page and "<title>Notebook</title>" in page
    _, dead, alive = nbformat.read(tmp_path / "out" / "n.ipynb", 4).cells
    assert alive.outputs and dead.outputs[0].data["text/plain"] == CONTROLS.format("controlos")


def test_the_copy_says_of_every_control_of_ours_what_it_is_for() -> None:
    books = [nbformat.read(path, 4) for path in sorted((HOME / "notebooks").glob("*.ipynb"))]
    cells = [cell for book in books for cell in book.cells if cell.id in SHOWN]
    assert {cell.id for cell in cells} == set(SHOWN)
    for cell in cells:
        cell.outputs = [nbformat.v4.new_output("display_data", {VIEW: {}, "text/plain": "HBox()"})]
    for book in books:
        drop_widgets(book)
    for cell in cells:
        assert list(cell.outputs[0].data) == ["text/html", "text/plain"]
        assert SHOWN[cell.id] in cell.outputs[0].data["text/html"]


@pytest.mark.parametrize(
    ("cell", "code", "said"),
    [
        (
            "from farense_qlora.errors import UserError\nraise UserError('falta o modelo')",
            2,
            "erro: falta o modelo\n",
        ),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_an_error_ends_the_run_and_keeps_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cell: str, code: int, said: str
) -> None:
    assert main(write(tmp_path / "n.ipynb", "print('antes')", cell), tmp_path / "out") == code
    assert said in capsys.readouterr().err
    assert "antes" in (tmp_path / "out" / "n.html").read_text()


def test_a_notebook_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path / "nada.ipynb", tmp_path) == 2
    assert "nada.ipynb" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said_before_any_cell_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("um ficheiro")
    assert main(write(tmp_path / "n.ipynb", "1"), tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "não consigo escrever" in said.err and "out" in said.err and said.out == ""


def test_a_kernel_that_dies_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = "print('antes')", "import os, time\nos._exit(9)"
    assert main(write(tmp_path / "n.ipynb", *cells), tmp_path / "out") == 1
    assert "o núcleo do notebook morreu" in capsys.readouterr().err
    assert "antes" in (tmp_path / "out" / "n.html").read_text()
