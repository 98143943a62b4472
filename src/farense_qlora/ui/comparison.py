"""Models side by side for people: a figure, one HTML page that needs nothing else, and a blind vote."""

import random
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path

import ipywidgets as widgets
import jinja2
import numpy as np
from IPython.display import HTML, display

from ..answers.compare import Comparison
from ..answers.evaluate import Answer
from ..answers.scoreboard import (
    DIFFERENCE_HEADER,
    comparison_text,
    difference_cells,
    measures,
    with_interval,
    write_comparison,
)
from ..files import atomic_write
from .figures import SERIES, Drawing, ThemeName
from .tables import Table

EXAMPLES = 14
EQUAL = "nenhuma é melhor"


def comparison_table(comparison: Comparison) -> Table:
    """All measures, a column for each contender."""
    names = tuple(contender.name for contender in comparison.contenders)
    rows = tuple((label, *cells) for label, cells in measures(comparison))
    return Table(("", *names), rows, numeric=frozenset(range(1, 1 + len(names))))


def comparison_figure(comparison: Comparison, theme: ThemeName = "auto") -> Drawing:
    """The share of right answers of each contender on each set of questions, with 95 % intervals."""
    contenders = comparison.contenders
    sets = [evaluation.name for evaluation in contenders[0].evaluations]
    figure = Drawing(8.4, 1.1 + 0.3 * len(sets) * len(contenders), theme)
    panels = figure.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]
    for index, (axes, title) in enumerate(zip(panels, sets, strict=True)):
        scores = [contender.evaluations[index] for contender in contenders]
        shares = np.array([100 * score.exact_match for score in scores])
        bounds = 100 * np.array([score.exact_interval for score in scores]).T
        # Rounding may leave a bound a hair on the wrong side of its share.
        errors = np.maximum(0, [shares - bounds[0], bounds[1] - shares])
        figure.plot_area(axes).grid(visible=False)
        colours = [SERIES[i % len(SERIES)] for i in range(len(contenders))]
        axes.barh(range(len(contenders)), shares, xerr=errors, color=colours, alpha=0.85, capsize=3)
        axes.set_yticks(range(len(contenders)), [contender.name for contender in contenders])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_title(title, fontsize=10, loc="left", color=figure.theme.ink)
    panels[-1].set_xlabel("respostas certas (%)")
    return figure


def comparison_page(comparison: Comparison) -> str:
    """The comparison as one page of HTML that loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("farense_qlora.ui", ""), autoescape=True, trim_blocks=True
    )
    contenders = comparison.contenders
    counts = ", ".join(f"{e.count} {e.name}" for e in contenders[0].evaluations)
    sets = [
        (
            evaluation.name,
            [
                {
                    "name": contender.name,
                    "value": 100 * mine.exact_match,
                    "low": 100 * mine.exact_interval[0],
                    "width": 100 * (mine.exact_interval[1] - mine.exact_interval[0]),
                    "text": with_interval(mine.exact_match, mine.exact_interval),
                }
                for contender in contenders
                for mine in contender.evaluations[index : index + 1]
            ],
        )
        for index, evaluation in enumerate(contenders[0].evaluations)
    ]
    return environment.get_template("compare.html").render(
        title=f"Comparação: {', '.join(contender.name for contender in contenders)}",
        about=f"Modelo base: {comparison.model}. As mesmas perguntas para todos: {counts}.",
        names=[contender.name for contender in contenders],
        sets=sets,
        measures=[[label, *cells] for label, cells in measures(comparison)],
        difference_header=DIFFERENCE_HEADER,
        differences=[difference_cells(difference) for difference in comparison.differences],
        notes=comparison.notes,
        examples=_spread(disputed(comparison), EXAMPLES),
    )


def save_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write table, figure, JSON and page to `folder`; returns the page. Raises `UserError` when it cannot."""
    write_comparison(comparison, folder)
    with atomic_write(folder / "compare.png") as path:
        comparison_figure(comparison, "light").savefig(path, format="png")
    with atomic_write(folder / "compare.html") as path:
        path.write_text(comparison_page(comparison), encoding="utf-8")
    return folder / "compare.html"


def disputed(comparison: Comparison) -> list[tuple[Answer, ...]]:
    """The questions that the contenders do not all answer alike, each with the answers in their order."""
    found = []
    for evaluations in zip(*(contender.evaluations for contender in comparison.contenders), strict=True):
        for answers in zip(*(evaluation.answers for evaluation in evaluations), strict=True):
            if len({answer.got for answer in answers}) > 1:
                found.append(answers)
    return found


class ComparisonView:
    """The comparison as the last line of a cell: the figure, measures and differences."""

    def __init__(self, comparison: Comparison):
        self.comparison = comparison

    def _repr_html_(self) -> str:
        apart = Table(
            DIFFERENCE_HEADER,
            tuple(tuple(difference_cells(difference)) for difference in self.comparison.differences),
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.comparison.notes)
        return comparison_table(self.comparison)._repr_html_() + apart._repr_html_() + f"<ul>{notes}</ul>"

    def _ipython_display_(self) -> None:
        display(comparison_figure(self.comparison), HTML(self._repr_html_()))

    def __repr__(self) -> str:
        return comparison_text(self.comparison)


class BlindVote:
    """A vote that does not know whose an answer is: columns in an order shuffled anew for each question.

    Who answers the same shares a column, and the votes for it. `votes` counts by contender; who was which is
    told at the end, or on «Revelar».
    """

    def __init__(self, comparison: Comparison, count: int = 10, seed: int = 0):
        self._names = [contender.name for contender in comparison.contenders]
        self._random = random.Random(seed)
        questions = disputed(comparison)
        self._questions = self._random.sample(questions, min(count, len(questions)))
        self.votes: Counter[str] = Counter()
        self._position = -1
        self._text, self._result = widgets.HTML(), widgets.HTML()
        self._buttons = [widgets.Button(description=f"Prefiro a {letter}") for letter in self._letters()]
        self._buttons += [widgets.Button(description=EQUAL)]
        reveal = widgets.Button(description="Revelar", button_style="info")
        for index, button in enumerate(self._buttons):
            button.on_click(lambda _, index=index: self._vote(index))
        reveal.on_click(lambda _: self._reveal())
        self._reveal_button = reveal
        buttons = widgets.HBox([*self._buttons, reveal], layout={"flex_flow": "row wrap"})
        self._box = widgets.VBox([self._text, buttons, self._result])
        self._next()

    def _letters(self) -> str:
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(self._names)]

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
        columns = Table(
            tuple(f"Resposta {letter}" for letter in self._letters()[: len(self._order)]),
            (tuple(answers[same[0]].got for same in self._order),),
            f"{self._position + 1} de {len(self._questions)}: {answers[0].question}",
        )
        self._text.value = columns._repr_html_()

    def _vote(self, column: int) -> None:
        chosen = (
            [self._names[index] for index in self._order[column]] if column < len(self._order) else [EQUAL]
        )
        self.votes.update(chosen)
        self._next()

    def _reveal(self) -> None:
        for button in (*self._buttons, self._reveal_button):
            button.disabled = True
        rows = [(name, str(self.votes[name])) for name in (*self._names, EQUAL)]
        tally = Table(("", "Votos"), tuple(rows), numeric=frozenset({1}))
        said = "Não há respostas diferentes em que votar." if not self._questions else ""
        self._result.value = said + tally._repr_html_() + self._which_was_which()._repr_html_()

    def _which_was_which(self) -> Table:
        """Every question voted on, with whose each answer was and the true one."""
        rows = [
            (answers[0].question, answers[0].expected, *(answer.got for answer in answers))
            for answers in self._questions[: self._position]
        ]
        return Table(("Pergunta", "Resposta verdadeira", *self._names), tuple(rows))

    def _ipython_display_(self) -> None:
        display(self._box)


def _spread(items: Sequence[tuple[Answer, ...]], count: int) -> list[tuple[Answer, ...]]:
    """`count` of `items`, at even distances."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]
