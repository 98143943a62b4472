"""Runs and models side by side for people: their curves, what they answer, and whose answers are better."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from IPython.display import HTML, display

from ..answers.compare import Comparison
from ..answers.evaluate import Answer, Answered
from ..files import atomic_write
from ..table import Table
from ..templates import render
from ..text import marked
from ..training.events import Event, Sampled, last
from ..training.overview import overview, runs
from ..training.run import Run, listed_runs
from .figures import SERIES, Drawing, compare_curves
from .kernel import tethered
from .live import WIDTH, right

EXAMPLES = 14
EQUAL = "nenhuma é melhor"
FITTING = {"width": f"{WIDTH}px", "max_width": "calc(100% - 4px)"}  # a widget has 2 pixels around it


def comparison_figure(comparison: Comparison) -> Drawing:
    """The share of right answers of each entry on each set of questions, with 95 % intervals."""
    names, sets = comparison.names, _by_set(comparison)
    height = 1.1 + 0.3 * len(sets) * len(names)
    figure = Drawing(f"Respostas certas de {', '.join(names)}", (8.4, height))
    panels = figure.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]
    for axes, scores in zip(panels, sets, strict=True):
        shares = np.array([100 * score.exact_match for score in scores])
        low, high = 100 * np.array([score.exact_interval for score in scores]).T
        # Rounding may leave a bound a hair on the wrong side of its share.
        errors = np.maximum(0, [shares - low, high - shares])
        figure.plot_area(axes).grid(visible=False)
        colours = [SERIES[i % len(SERIES)] for i in range(len(names))]
        axes.barh(range(len(names)), shares, xerr=errors, color=colours, alpha=0.85, capsize=3)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(scores[0].name, fontsize=10, loc="left", color=figure.theme.ink)
    panels[-1].set_xlabel("respostas certas (%)")
    return figure


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one page of HTML that loads nothing."""
    questions = disputed(comparison)
    count = min(EXAMPLES, len(questions))
    return render(
        "ui/compare.html",
        comparison=comparison,
        sets=_by_set(comparison),
        examples=[questions[i * len(questions) // count] for i in range(count)],  # at even distances
    )


def save_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write tables, JSON, figure and page to `folder`; returns the page. Raises `UserError` if it cannot."""
    comparison.save(folder)
    with atomic_write(folder / "compare.png") as path:
        comparison_figure(comparison).savefig(path, format="png")
    with atomic_write(folder / "compare.html") as path:
        path.write_text(comparison_page(comparison), encoding="utf-8")
    return folder / "compare.html"


def disputed(comparison: Comparison) -> list[tuple[Answer, ...]]:
    """The questions that not all models answer alike, each with the answers in their order."""
    return [answers for answers in comparison.asked() if len({answer.got for answer in answers}) > 1]


class ComparisonView:
    """The comparison as the last line of a cell: the figure, measures and differences.

    >>> view = fq.ComparisonView(fq.compare_runs([run]))
    """

    def __init__(self, comparison: Comparison):
        self.comparison = comparison

    def _ipython_display_(self) -> None:
        display(comparison_figure(self.comparison), HTML(self.comparison._repr_html_()))

    def __repr__(self) -> str:
        return repr(self.comparison)


class BlindVote(widgets.VBox):
    """A vote that does not know whose an answer is: columns in an order shuffled anew for each question.

    Who answers the same shares a column, and the votes for it. `votes` counts by entry; who was which is
    told at the end, or on «Revelar».

    >>> vote = fq.BlindVote(fq.compare_runs([run]))
    """

    def __init__(self, comparison: Comparison, count: int = 10, seed: int = 0):
        self._names = comparison.names
        self._random = random.Random(seed)
        questions = disputed(comparison)
        self._questions = self._random.sample(questions, min(count, len(questions)))
        self.votes: Counter[str] = Counter()
        self._position = -1
        self._text, self._result = widgets.HTML(), widgets.HTML()
        self._letters = [chr(ord("A") + index) for index in range(len(self._names))]
        said = [*(f"Prefiro a {letter}" for letter in self._letters), EQUAL]
        self._buttons = [widgets.Button(description=text) for text in said]
        for index, button in enumerate(self._buttons):
            button.on_click(lambda _, index=index: self._vote(index))
        self._reveal_button = widgets.Button(description="Revelar", button_style="info")
        self._reveal_button.on_click(lambda _: self._reveal())
        buttons = widgets.HBox([*self._buttons, self._reveal_button], layout={"flex_flow": "row wrap"})
        self._next()
        super().__init__([self._text, buttons, self._result])
        tethered(self)

    def _next(self) -> None:
        self._position += 1
        if self._position == len(self._questions):
            self._reveal()
            return
        answers = self._questions[self._position]
        whose: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            whose.setdefault(answer.got, []).append(index)
        self._order = self._random.sample(list(whose.values()), len(whose))
        for column, button in enumerate(self._buttons[:-1]):
            button.layout.display = None if column < len(self._order) else "none"
        columns = zip(self._letters, self._order, strict=False)
        shown = {f"Resposta {letter}": [answers[same[0]].got] for letter, same in columns}
        caption = f"{self._position + 1} de {len(self._questions)}: {answers[0].question}"
        self._text.value = Table(shown, caption=caption)._repr_html_()

    def _vote(self, column: int) -> None:
        chosen = self._order[column] if column < len(self._order) else []
        self.votes.update([self._names[index] for index in chosen] or [EQUAL])
        self._next()

    def _reveal(self) -> None:
        for button in (*self._buttons, self._reveal_button):
            button.disabled = True
        rows = [(name, self.votes[name]) for name in (*self._names, EQUAL)]
        tally = Table(rows, columns=["", "Votos"])
        said = "" if self._questions else "Não há respostas diferentes em que votar."
        voted = self._questions[: self._position]
        which = [(a[0].question, a[0].expected, *(answer.got for answer in a)) for a in voted]
        told = Table(which, columns=["Pergunta", "Resposta verdadeira", *self._names])
        self._result.value = said + tally._repr_html_() + told._repr_html_()


def _by_set(comparison: Comparison) -> list[tuple[Answered, ...]]:
    """The scores of all models on each set of questions."""
    return list(zip(*(entry.evaluations for entry in comparison.contenders), strict=True))


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
