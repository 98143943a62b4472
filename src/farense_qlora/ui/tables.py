"""Small tables that read well in a notebook, light or dark, in its HTML copy and in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ..answers.compare import Change
from ..answers.evaluate import LABELS, Evaluation
from ..answers.scoreboard import changes_text
from ..config import GROUPS, Config
from ..data.rows import Row
from ..model.base import Base
from ..model.machine import Machine
from ..text import decimal, percent, plain, size, text_table
from ..training.doctor import Report, machine_facts
from ..training.fit import Fit
from ..training.numbers import Gap

# Notebook front ends align every table to the right; `!important` is what it takes to differ.
STYLE = """<style>
table.fq {border-collapse: collapse; font-size: 13px; line-height: 1.35; margin: 6px 0}
table.fq caption {text-align: left !important; font-weight: 600; padding: 4px 0; color: inherit}
table.fq td, table.fq th {text-align: left !important; vertical-align: top; padding: 5px 12px 5px 0;
    max-width: 46em; border-bottom: 1px solid rgba(128, 128, 128, .3)}
table.fq .n {text-align: right !important; font-variant-numeric: tabular-nums}
</style>"""


NO_QUESTIONS = "as linhas são texto corrido: não há perguntas que fazer; a perplexidade diz o que se aprendeu"


@dataclass(frozen=True)
class Table:
    """Text in columns; `numeric` names those that go to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    numeric: frozenset[int] = frozenset()

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "".join(
                f"<{tag}{' class=n' if i in self.numeric else ''}>{escape(cell)}</{tag}>"
                for i, cell in enumerate(cells)
            )

        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        head = f"<tr>{line(self.columns, 'th')}</tr>" if any(self.columns) else ""
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.rows)
        return f"{STYLE}<table class=fq>{caption}{head}{body}</table>"

    def __repr__(self) -> str:
        return "\n".join(filter(None, (self.caption, text_table(self.columns, self.rows))))


def machine_table(machine: Machine) -> Table:
    """What the computer is."""
    return _facts("Este computador", *machine_facts(machine))


def doctor_table(report: Report) -> Report:
    """`report`, which draws itself."""
    return report


def fit_table(found: Fit) -> Fit:
    """`found`, which draws itself."""
    return found


def rows_table(rows: Sequence[Row], count: int = 6) -> Table:
    """A few rows, spread over the data."""
    talks = [(row.kind, [m["content"] for m in row.messages if m["role"] != "system"]) for row in rows]
    talks = [(kind, said) for kind, said in talks if len(said) > 1]
    count = min(count, len(talks))
    chosen = [talks[i * len(talks) // count] for i in range(count)]
    return Table(
        ("Tipo", "Pergunta", "Resposta"),
        tuple((LABELS.get(kind, kind), said[0], said[1]) for kind, said in chosen),
        f"{count} de {len(rows)} linhas de treino",
    )


def kinds_table(sets: dict[str, Sequence[Row]]) -> Table:
    """How many rows of each kind each set has."""
    kinds = sorted({row.kind for rows in sets.values() for row in rows})
    lines = [
        (
            LABELS.get(kind, kind or "outro"),
            *(str(sum(row.kind == kind for row in rows)) for rows in sets.values()),
        )
        for kind in kinds
    ]
    lines.append(("total", *(str(len(rows)) for rows in sets.values())))
    return Table(("Tipo de pergunta", *sets), tuple(lines), numeric=frozenset(range(1, len(sets) + 1)))


def config_table(config: Config) -> Table:
    """Every setting with its value and what it does."""
    order = list(GROUPS)
    fields = sorted(Config.model_fields.items(), key=lambda item: order.index(_group(item[0])))
    return Table(
        ("Definição", "Valor", "O que faz"),
        tuple(
            (str(field.title), show(getattr(config, name)), str(field.description)) for name, field in fields
        ),
        f"Definições do treino (perfil {config.profile})",
    )


def base_table(base: Base) -> Table:
    """What the base model is."""
    return _facts(
        "Modelo base",
        ("Modelo", base.name),
        ("Parâmetros", f"{decimal(base.parameters / 1e6, 1)} milhões"),
        ("Bits por peso", str(base.bits)),
        ("Em memória", size(base.size_gb)),
        ("Carregado em", f"{decimal(base.load_seconds, 1)} s"),
    )


def gap_table(gap: Gap) -> Gap:
    """`gap`, which draws itself."""
    return gap


@dataclass(frozen=True)
class Comparison:
    """The base model beside the adapter, as a table."""

    changes: Sequence[Change]

    def _repr_html_(self) -> str:
        rows = tuple(
            (
                change.name,
                str(change.count),
                *map(percent, (change.exact_match_before, change.exact_match_after)),
                *map(percent, (change.f1_before, change.f1_after)),
            )
            for change in self.changes
        )
        columns = ("", "Perguntas", "Certas antes", "Certas depois", "F1 antes", "F1 depois")
        return Table(columns, rows, numeric=frozenset(range(1, 6)))._repr_html_()

    def __repr__(self) -> str:
        return changes_text(self.changes)


def score_table(evaluations: Sequence[Evaluation]) -> Table:
    """The first of `evaluations`, by kind of question and by table; there is none of bare texts."""
    return Table(
        ("", "Perguntas", "Certas", "F1"),
        tuple(
            (label, str(score.count), percent(score.exact_match), percent(score.f1))
            for evaluation in evaluations[:1]
            for label, score in evaluation.table()
        ),
        "" if evaluations else NO_QUESTIONS,
        numeric=frozenset({1, 2, 3}),
    )


def answers_table(before: Sequence[Evaluation], after: Sequence[Evaluation], count: int = 8) -> Table:
    """The questions of the first evaluation answered by the base model and by the adapter, and the truth."""
    wrong = [answer for evaluation in before[:1] for answer in evaluation.wrong]
    # Follow-up questions are asked in the same words of different things: the true answer tells them apart.
    learnt = {(a.question, a.expected): a.got for evaluation in after[:1] for a in evaluation.wrong}
    return Table(
        ("Pergunta", "Resposta certa", "Modelo base", "Com o adaptador"),
        tuple(
            (a.question, a.expected, a.got, learnt.get((a.question, a.expected), a.expected))
            for a in wrong[:: max(1, len(wrong) // count)][:count]
        ),
        "" if before else NO_QUESTIONS,
    )


def show(value: object) -> str:
    """A setting's value for people."""
    match value:
        case None:
            return "sem limite"
        case "":
            return "—"
        case bool():
            return "sim" if value else "não"
        case tuple():
            return ", ".join(map(str, value)) or "todos"
        case float():
            return plain(value)
    return str(value)


def _facts(caption: str, *facts: tuple[str, str]) -> Table:
    return Table(("", ""), facts, caption)


def _group(name: str) -> str:
    extra = Config.model_fields[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""
