"""Small tables that read well in a notebook, light or dark, in its HTML copy and in a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from ..answers.evaluate import LABELS
from ..config import GROUPS, Config
from ..data.rows import Row
from ..model.base import Base
from ..model.machine import Machine
from ..text import decimal, plain, size, text_table
from ..training.doctor import Report
from ..training.fit import Trial
from ..training.gap import Gap

# Notebook front ends align every table to the right; `!important` is what it takes to differ.
STYLE = """<style>
table.fq {border-collapse: collapse; font-size: 13px; line-height: 1.35; margin: 6px 0}
table.fq caption {text-align: left !important; font-weight: 600; padding: 4px 0; color: inherit}
table.fq td, table.fq th {text-align: left !important; vertical-align: top; padding: 5px 12px 5px 0;
    max-width: 46em; border-bottom: 1px solid rgba(128, 128, 128, .3)}
table.fq .n {text-align: right !important; font-variant-numeric: tabular-nums}
</style>"""


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
    return _facts(
        "Este computador",
        ("Sistema", machine.system),
        ("Processador", f"{machine.chip}, {machine.cores} núcleos"),
        ("Memória", f"{decimal(machine.memory_gb, 1)} GB"),
        ("O MLX calcula em", machine.device),
        ("Álgebra linear", f"{machine.blas}, {decimal(machine.gflops, 0)} GFLOP/s medidos"),
        ("Versões", f"Python {machine.python}, mlx {machine.mlx}, mlx-lm {machine.mlx_lm}"),
    )


def doctor_table(report: Report) -> Table:
    """What the computer is, and what was checked on it."""
    about, checked = machine_table(report.machine), {check.name for check in report.checks}
    rows = [
        (
            f"{'✓' if check.ok else '✗'} {check.name}",
            check.detail if check.ok else f"{check.detail}: {check.remedy}",
        )
        for check in report.checks
    ]
    facts = [row for row in about.rows if row[0] not in checked]  # nothing is said twice
    return replace(about, rows=(*facts, *rows, ("Perfil recomendado", report.profile)))


def fit_table(trials: Sequence[Trial]) -> Table:
    """Whether training fits the memory of this machine, and the nearest settings that do."""
    return _facts(
        "Memória de treino, medida num processo à parte",
        *((f"Tentativa {i}", trial.sentence(trials[0].config)) for i, trial in enumerate(trials, 1)),
    )


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


def gap_table(gap: Gap | None) -> Table:
    """The distance between training and validation, and the verdict."""
    if gap is None:
        return _facts("Distância", ("Veredicto", "o treino acabou antes da primeira avaliação"))
    return _facts(
        "Distância entre treino e validação",
        ("Perda de treino (último quarto de época)", decimal(gap.train_loss)),
        ("Perda de validação", decimal(gap.val_loss)),
        ("Distância", decimal(gap.gap)),
        ("Veredicto", gap.verdict),
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
