"""Run a notebook from the terminal as a person would, from top to bottom, in a real kernel.

Leaves the executed notebook and a self-contained HTML copy, and prints the output of its cell «resultado».
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from traitlets.config import Config as Traits

from farense_qlora.errors import reason
from farense_qlora.text import decimal

RESULT = "resultado"
CONTROLS = "Aqui, com o notebook aberto no Jupyter, há {}."
SHOWN = {  # by the cell
    "painel": "um painel que muda as definições e diz quanto custam",
    "linhas-tokens": "botões para folhear as linhas e procurar nelas",
    "votar": "uma votação às cegas entre as respostas",
    "conversa": "uma caixa para conversar com o modelo, com e sem o adaptador",
    "escolher": "uma lista de treinos, para os comparar lado a lado",
}
PICTURE = "Gráfico; os números dele estão nas tabelas desta página"


def main(notebook: Path, output: Path) -> int:
    """Execute `notebook` into the folder `output`; returns 0, 2 for what the user can mend, else 1."""
    if not notebook.is_file():
        print(f"erro: não encontro o notebook {notebook}", file=sys.stderr)
        return 2
    try:  # now, and not when the work is done
        if not output.exists():
            output.mkdir(parents=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        print(f"erro: não consigo escrever em {output}: {reason(error)}", file=sys.stderr)
        return 2
    book = nbformat.read(notebook, as_version=4)
    start = time.perf_counter()
    code = 0
    try:
        execute(book, notebook.resolve().parent)
    except CellExecutionError as error:
        code = 2 if error.ename == "UserError" else 1
        lines = re.sub(r"\x1b\[[\d;]*m", "", error.traceback).strip().splitlines()
        print(f"erro: {error.evalue}" if code == 2 else "\n".join(lines[-12:]), file=sys.stderr)
    except DeadKernelError:
        code = 1
        print("erro: o núcleo do notebook morreu a meio de uma célula (falta de memória?)", file=sys.stderr)
    drop_widgets(book)
    nbformat.write(book, output / notebook.name)
    (output / notebook.name).with_suffix(".html").write_text(to_html(book), encoding="utf-8")
    if code == 0:
        print(*results(book), sep="\n")
        copy = (output / notebook.name).with_suffix(".html")
        print(f"\n{time.perf_counter() - start:.0f} s; notebook executado e cópia em HTML: {copy}")
    return code


def execute(book: nbformat.NotebookNode, folder: Path) -> None:
    """Run every cell of `book` in a fresh kernel in `folder`, saying which; outputs land in `book`."""
    client = NotebookClient(
        book,
        timeout=None,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
    )
    heading = ""
    with client.setup_kernel():
        for index, cell in enumerate(book.cells):
            if cell.cell_type == "markdown" and (found := re.search(r"^#+ (.+)$", cell.source, re.MULTILINE)):
                heading = found[1]
            if cell.cell_type == "code":
                began = time.perf_counter()
                print(f"{heading} … ", end="", flush=True)
                try:
                    client.execute_cell(cell, index)
                except (CellExecutionError, DeadKernelError):
                    print(flush=True)  # ends the line, so that the error begins one
                    raise
                print(f"{decimal(time.perf_counter() - began, 1)} s", flush=True)


def drop_widgets(book: nbformat.NotebookNode) -> None:
    """Say where `book` had controls in place of them: without their kernel they are dead."""
    book.metadata.pop("widgets", None)
    for cell in book.cells:
        if cell.cell_type == "code":
            said = CONTROLS.format(SHOWN.get(cell.id, "controlos"))
            for output in filter(_is_widget, cell.outputs):
                output.data = {"text/html": f"<p><em>{said}</em></p>", "text/plain": said}


def to_html(book: nbformat.NotebookNode) -> str:
    """`book` as one HTML page, in Portuguese, that loads nothing from elsewhere."""
    exporter = HTMLExporter(config=Traits({"HTMLExporter": {"mathjax_url": "", "require_js_url": ""}}))
    page, _ = exporter.from_notebook_node(book)
    page = re.sub(r'<script[^>]*src="[^"]*"[^>]*>\s*</script>', "", page)
    page = re.sub(r'<script type="module">((?!</script>).)*</script>', "", page, flags=re.DOTALL)  # diagrams
    title = next(
        (line[2:] for line in book.cells[0].source.splitlines() if line.startswith("# ")), "Notebook"
    )
    page = re.sub("<title>.*?</title>", lambda _: f"<title>{escape(title)}</title>", page, count=1)
    page = page.replace("No description has been provided for this image", PICTURE)
    return page.replace('<html lang="en"', '<html lang="pt-PT"', 1)


def results(book: nbformat.NotebookNode) -> Iterator[str]:
    """The plain text of every output of the cells tagged «resultado»."""
    for cell in book.cells:
        if RESULT in cell.metadata.get("tags", []):
            for output in cell.outputs:
                if "data" in output:
                    yield output.data.get("text/plain", "")


def _is_widget(output: nbformat.NotebookNode) -> bool:
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
