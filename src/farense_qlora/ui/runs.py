"""A few runs side by side: their curves and what they answer."""

from collections.abc import Mapping, Sequence

import ipywidgets as widgets

from ..table import Table
from ..text import marked
from ..training.events import Event, Sampled, last
from ..training.overview import overview, runs
from ..training.run import Run, listed_runs
from .figures import compare_curves
from .kernel import tethered
from .live import WIDTH, right

FITTING = {"width": f"{WIDTH}px", "max_width": "calc(100% - 4px)"}  # a widget has 2 pixels around it


class RunPicker(widgets.VBox):
    """A list to pick runs from, the newest two picked at first, and those picked in one view: their losses
    overlaid, their numbers, and the last answers of each to the probes.

    >>> fq.RunPicker().picked.value[0] in fq.runs()["treino"].tolist()
    True
    """

    def __init__(self) -> None:
        names = [run.name for run in listed_runs()]
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
        super().__init__([self.picked, self.curves, self.tables])
        tethered(self)

    def _show(self) -> None:
        picked = [Run.open(name) for name in self.picked.value]
        events = {run.name: run.events() for run in picked}
        self.curves.value = compare_curves(events)._repr_png_()
        numbers = runs([overview(run, events[run.name]) for run in picked], "")
        self.tables.value = numbers._repr_html_() + last_answers(events)._repr_html_()


def last_answers(runs: Mapping[str, Sequence[Event]]) -> Table:
    """One row a question that some of `runs` was asked; the last answer of each, and the true one."""
    answers: dict[tuple[str, str], dict[str, str]] = {}
    for name, events in runs.items():
        if sampled := last(events, Sampled):
            for question, true, said in zip(
                sampled.questions, sampled.expected, sampled.answers, strict=True
            ):
                answers.setdefault((question, true), {})[name] = marked(said, right(said, true))
    rows = [
        {"Pergunta": question, "Resposta certa": true, **{name: said.get(name, "—") for name in runs}}
        for (question, true), said in answers.items()
    ]
    return Table(
        rows, columns=["Pergunta", "Resposta certa", *runs], caption="As últimas respostas de cada treino"
    )
