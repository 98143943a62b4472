"""What the view of trials leaves in a notebook: their curves over each other, and the table."""

from pathlib import Path

import nbformat
from headless import main
from trial_files import write_trials
from ui_events import events, write_run

CODE = """
from pathlib import Path
from farense_qlora.answers.trials import Trials
from farense_qlora.ui.live import TrialView
await TrialView(Trials(Path("{folder}")))
"""


def test_curves_and_table_stay_in_the_notebook(tmp_path: Path) -> None:
    runs = tmp_path / "checkpoints_qlora"
    folder = runs / ".ensaios" / "ensaio-1"
    worse, better, best = [2.0, 3.0] * 9, [1.0, 2.0] * 9, [0.5, 1.0] * 9
    write_trials(folder, (0, 0, worse), (1, 0, better), (2, 0, worse), (1, 1, best))
    for number in (1, 2):
        (runs / f"ensaio-1-{number:02d}").mkdir()
        write_run(runs / f"ensaio-1-{number:02d}", events())
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE.format(folder=folder))])
    nbformat.write(book, tmp_path / "n.ipynb")
    assert main(tmp_path / "n.ipynb", tmp_path / "out") == 0
    outputs = [out.data for out in nbformat.read(tmp_path / "out" / "n.ipynb", 4).cells[0].outputs]
    html = "".join(data.get("text/html", "") for data in outputs)
    assert sum("image/png" in data for data in outputs) == 1
    assert "Ensaios ensaio-1 (terminados)" in html and "recomendada" in html and "Parar" not in html
