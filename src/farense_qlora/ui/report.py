"""One run as one HTML page that needs nothing else: to keep, to send, to print."""

import base64
import shlex
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from statistics import median

from ..answers.evaluate import Evaluation, compare
from ..config import OUTPUT, Config
from ..data.sources import fingerprint
from ..errors import UserError
from ..files import Linked, atomic_write
from ..model.machine import machine
from ..table import Table
from ..templates import render
from ..text import counted, decimal
from ..training.checkpoints import versions
from ..training.doctor import machine_facts
from ..training.events import Event, Merged, Started, Stepped, last, of, sentences
from ..training.overview import STATUS, differences, overview
from ..training.run import Run
from .figures import ThemeName, training_curves
from .live import samples


def report(run: Run, folder: Path = OUTPUT) -> Path:
    """Write the report of `run` into `folder` and return its path; raises `UserError` when it cannot.

    >>> fq.report(run).name
    'relatorio-decorado.html'
    """
    events, config = run.events(), run.config
    now, evaluation, table = overview(run, events), Evaluation.read(run.folder), None
    if evaluation:  # beside that of the base, where it was measured
        table = compare(evaluation.before, evaluation)
        table.caption = str(evaluation.tokens)
    page = render(
        "ui/report.html",
        run=run.name,
        status=STATUS[now.status],
        day=f"{datetime.fromtimestamp(events[-1].time):%d-%m-%Y}" if events else "",
        numbers=now.labelled(),
        light=_curves(events, "light"),
        dark=_curves(events, "dark"),
        said=sentences(events),
        samples=samples(events),
        evaluation=table,
        data=_data_table(config, last(events, Started)),
        changed=[Config.model_fields[name].title for name in now.differs],
        settings=config,
        forecast=forecast_table(events),
        machine=Table.of_facts("Este computador", machine_facts(machine())),
        versions=versions(),
        command=train_command(run),
    )
    path = folder / f"relatorio-{run.name}.html"
    with atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return Linked(path)


def train_command(run: Run) -> str:
    """The command that makes what `run` made, under another name."""
    if merged := last(run.events(), Merged):
        weights, name = map(str, merged.weights), f"{run.name}-outra-vez"
        return shlex.join(["farense-qlora", "merge", *merged.runs, "--weights", *weights, "--run", name])
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


def _curves(events: Sequence[Event], theme: ThemeName) -> str:
    """The curves as SVG, in the Base64 of a data URL."""
    svg = BytesIO()
    training_curves(events, theme).savefig(svg, format="svg")
    return base64.b64encode(svg.getvalue()).decode()


def forecast_table(events: Sequence[Event]) -> Table | None:
    """What was predicted when training began, and what it then took; None when nothing was."""
    started, steps = last(events, Started), of(events, Stepped)
    if started is None or not steps:
        return None
    took = {
        "Memória máxima (GB)": (started.predicted_gb, max(step.peak_memory_gb for step in steps)),
        "Segundos por atualização": (started.predicted_seconds, median(step.seconds for step in steps)),
    }
    rows = [
        (what, decimal(told, 2), decimal(real, 2), f"{decimal(100 * (told / real - 1), 0)} %")
        for what, (told, real) in took.items()
        if told
    ]
    columns = ["Medida", "Previsão", "Treino", "Diferença"]
    return Table(rows, columns=columns, caption="Previsão e treino") if rows else None


def _data_table(config: Config, started: Started | None) -> Table:
    """The files, with the digest by which they can be told from others, and what of them was used."""
    rows = []
    for what, path, count in (
        ("Treino", config.train_data, started.train_rows if started else None),
        ("Validação", config.val_data, started.val_rows if started else None),
    ):
        try:
            digest = fingerprint(path)[:16] if path else "tirada do treino"
        except UserError:
            digest = "já não existe"
        rows.append((what, path, "—" if count is None else decimal(count, 0), digest))
    lost = started.truncated_rows if started else 0
    caption = f"Comprimento máximo: {config.max_seq_length} tokens"
    caption += f"; {counted(lost, 'linha cortada')}" if lost else ""
    columns = ["Conjunto", "Ficheiro", "Linhas", "SHA-256 (hoje)"]
    return Table(rows, columns=columns, caption=caption, formats={"Linhas": str})
