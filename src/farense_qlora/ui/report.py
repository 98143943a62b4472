"""One run as one HTML page that needs nothing else: to keep, to send, to print."""

import base64
import shlex
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path

import jinja2

from ..answers.compare import compare
from ..answers.evaluate import Evaluation
from ..config import Config
from ..data.sources import fingerprint
from ..errors import UserError
from ..files import atomic_write
from ..model.machine import machine
from ..text import decimal
from ..training.checkpoints import versions
from ..training.events import Event, Finished, Started, sentence
from ..training.overview import STATUS, differences, overview
from ..training.run import Run
from .figures import ThemeName, training_curves
from .live import samples
from .tables import Table, config_table, machine_table


def report(run: Run, folder: Path) -> Path:
    """Write the report of `run` into `folder` and return its path; raises `UserError` when it cannot."""
    events = run.events()
    config = run.config
    now = overview(run, events)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("farense_qlora.ui", ""), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html").render(
        run=run.name,
        status=STATUS[now.status],
        day=f"{datetime.fromtimestamp(events[-1].time):%d-%m-%Y}" if events else "",
        numbers=now.labelled(),
        light=_svg(events, "light"),
        dark=_svg(events, "dark"),
        said=[text for event in events if not isinstance(event, Finished) and (text := sentence(event))],
        changed={str(Config.model_fields[name].title) for name in now.differs},
        settings=config_table(config),
        data=_data_table(config, events),
        samples=samples(events),
        evaluation=_evaluation_table(run),
        machine=_environment_table(),
        command=train_command(run),
    )
    path = folder / f"relatorio-{run.name}.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def train_command(run: Run) -> str:
    """The command that trains as `run` did, under another name."""
    config = run.config
    words = ["farense-qlora", "train", "--run", f"{run.name}-outra-vez", "--profile", config.profile]
    for name, value in differences(config).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        elif isinstance(value, tuple):
            words += [flag, *value]
        elif value is not None:
            words += [flag, str(value)]
    return shlex.join(words)


def _svg(events: Sequence[Event], theme: ThemeName) -> str:
    started = next((event for event in events if isinstance(event, Started)), None)
    svg = BytesIO()
    training_curves(events, started.total_steps if started else None, theme).savefig(svg, format="svg")
    return base64.b64encode(svg.getvalue()).decode()


def _data_table(config: Config, events: Sequence[Event]) -> Table:
    """The files, with the digest by which they can be told from others, and what of them was used."""
    started = next((event for event in events if isinstance(event, Started)), None)
    rows = []
    for what, path, count in (
        ("Treino", config.train_data, started.train_rows if started else None),
        ("Validação", config.val_data, started.val_rows if started else None),
    ):
        try:
            digest = fingerprint(path)[:16] if path else "tirada do treino"
        except UserError:
            digest = "já não está cá"
        rows.append((what, path, "—" if count is None else decimal(count, 0), digest))
    cut = f"; {started.truncated_rows} linhas cortadas" if started and started.truncated_rows else ""
    return Table(
        ("Conjunto", "Ficheiro", "Linhas", "SHA-256 (hoje)"),
        tuple(rows),
        f"Comprimento máximo: {config.max_seq_length} tokens{cut}",
        numeric=frozenset({2}),
    )


def _evaluation_table(run: Run) -> Table | None:
    """The stored evaluation, before (if it was measured) and after training; None when there is none."""
    evaluation = Evaluation.read(run.folder)
    if evaluation is None:
        return None
    shown = compare(evaluation.before, evaluation)
    rows = tuple(tuple(row) for row in shown.cells())
    return Table(tuple(shown.columns), rows, str(evaluation.tokens), numeric=frozenset(range(1, 6)))


def _environment_table() -> Table:
    """The computer that writes the report, and what it computes with."""
    about = machine_table(machine())
    others = ", ".join(f"{name} {versions()[name]}" for name in ("farense-qlora", "transformers"))
    return Table(about.columns, (*about.rows, ("Outras versões", others)))
