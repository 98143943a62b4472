"""All runs in one table, and a few of them side by side: their curves and what they answer."""

from collections.abc import Sequence

from IPython.display import display

from ..results.overview import COLUMNS, Overview, columns, overviews
from ..training.events import Event, Sampled
from ..training.run import Run
from .figures import Drawing, compare_curves
from .tables import Table


def runs_table() -> Table:
    """Every run: where it stands, in what it differs from its profile, how good it is and what it took."""
    rows = tuple(_line(row) for row in overviews())
    return Table(COLUMNS, rows, "Todos os treinos", numeric=frozenset(range(3, len(COLUMNS))))


def compare_runs(names: Sequence[str]) -> "RunsBeside":
    """The runs called `names` in one view; raises `UserError` for one that does not exist."""
    return RunsBeside({name: Run.open(name).events() for name in names})


class RunsBeside:
    """The losses of some runs overlaid, their numbers, and the last answers of each to the probes."""

    def __init__(self, runs: dict[str, list[Event]]):
        self.figure: Drawing = compare_curves(runs)
        rows = tuple(_line(row) for row in overviews() if row.run in runs)
        self.numbers = Table(COLUMNS, rows, numeric=frozenset(range(3, len(COLUMNS))))
        self.answers = _answers(runs)

    def _ipython_display_(self) -> None:
        display(self.figure, self.numbers, self.answers)

    def __repr__(self) -> str:
        return f"{self.numbers!r}\n\n{self.answers!r}"


def _line(row: Overview) -> tuple[str, ...]:
    """`row` for the table: a number stays on one line, a setting may break before its value."""
    name, status, settings, *numbers = columns(row)
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
