"""All runs in one table, and a few of them side by side: their curves and what they answer."""

from collections.abc import Sequence

import ipywidgets as widgets
from IPython.display import display

from ..training.events import Event, Sampled
from ..training.overview import Overview, overview, overviews
from ..training.run import Run, all_runs
from .figures import compare_curves
from .live import WIDTH
from .tables import Table

FITTING = {"width": f"{WIDTH}px", "max_width": "calc(100% - 4px)"}  # a widget has 2 pixels around it


def runs_table() -> Table:
    """Every run: where it stands, in what it differs from its profile, how good it is and what it took."""
    return _table([overview(run) for run in all_runs()], "Todos os treinos")


class RunsBeside:
    """A list to pick runs from, the newest two picked at first, and those picked in one view: their losses
    overlaid, their numbers, and the last answers of each to the probes."""

    def __init__(self) -> None:
        names = [run.name for run in reversed(all_runs())]
        self.picked = widgets.SelectMultiple(
            options=names,
            value=names[:2],
            description="Treinos",
            rows=min(8, max(2, len(names))),
            layout={"width": "460px"},
        )
        self.curves, self.tables = widgets.Image(format="png", layout=FITTING), widgets.HTML()
        self.picked.observe(lambda _: self._show(), names="value")
        self._show()

    def _show(self) -> None:
        picked = [Run.open(name) for name in self.picked.value]
        events = {run.name: run.events() for run in picked}
        self.curves.value = compare_curves(events)._repr_png_()
        numbers = _table([overview(run, events[run.name]) for run in picked])
        self.tables.value = numbers._repr_html_() + _answers(events)._repr_html_()

    def _ipython_display_(self) -> None:
        display(widgets.VBox([self.picked, self.curves, self.tables]))


def _table(rows: Sequence[Overview], caption: str = "") -> Table:
    table = overviews(rows)
    numeric = frozenset(range(3, len(table.columns)))
    return Table(tuple(table.columns), tuple(map(_line, table.cells())), caption, numeric=numeric)


def _line(cells: Sequence[str]) -> tuple[str, ...]:
    """`cells` for the table: a number stays on one line, a setting may break before its value."""
    name, status, settings, *numbers = cells
    settings = settings.replace("=", "=\u200b").replace("+", "+\u200b")
    return name, status, settings, *(text.replace(" ", "\u00a0").replace("\u00a0(", " (") for text in numbers)


def _answers(runs: dict[str, list[Event]]) -> Table:
    """One row a question that some run was asked; the last answer of each run, and the true one."""
    last = {
        name: next((event for event in reversed(events) if isinstance(event, Sampled)), None)
        for name, events in runs.items()
    }
    asked = [event for event in last.values() if event is not None]
    truth = {pair: None for event in asked for pair in zip(event.questions, event.expected, strict=True)}
    given = {
        (name, question): answer
        for name, event in last.items()
        if event is not None
        for question, answer in zip(event.questions, event.answers, strict=True)
    }
    rows = tuple(
        (question, true, *(given.get((name, question), "—") for name in runs)) for question, true in truth
    )
    return Table(("Pergunta", "Resposta certa", *runs), rows, "As últimas respostas de cada treino")
