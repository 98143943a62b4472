"""One run as one HTML page that needs nothing else: to keep, to send, to print."""

import base64
import json
import shlex
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from ..answers.evaluate import LABELS, STORED, TokenScores
from ..answers.scoreboard import tokens_text
from ..config import Config
from ..data.sources import fingerprint
from ..errors import UserError
from ..files import atomic_write
from ..model.machine import machine
from ..table import Table
from ..templates import render
from ..text import decimal, percent
from ..training.checkpoints import versions
from ..training.events import Event, Finished, Started
from ..training.overview import STATUS, differences, overview
from ..training.run import Run
from ..training.words import sentence
from .figures import ThemeName, training_curves
from .live import samples
from .tables import config_table, machine_table


def report(run: Run, folder: Path) -> Path:
    """Write the report of `run` into `folder` and return its path; raises `UserError` when it cannot."""
    events, config = run.events(), run.config
    started = next((event for event in events if isinstance(event, Started)), None)
    now = overview(run, events)
    page = render(
        "ui/report.html",
        run=run.name,
        status=STATUS[now.status],
        day=f"{datetime.fromtimestamp(events[-1].time):%d-%m-%Y}" if events else "",
        numbers=now.labelled(),
        light=_curves(events, started, "light"),
        dark=_curves(events, started, "dark"),
        said=[text for event in events if not isinstance(event, Finished) and (text := sentence(event))],
        samples=samples(events),
        evaluation=_evaluation_table(run),
        data=_data_table(config, started),
        changed=[Config.model_fields[name].title for name in now.differs],
        settings=config_table(config),
        machine=machine_table(machine()),
        versions=versions(),
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


def _curves(events: Sequence[Event], started: Started | None, theme: ThemeName) -> str:
    """The curves as SVG, in the Base64 of a data URL."""
    svg = BytesIO()
    training_curves(events, started.total_steps if started else None, theme).savefig(svg, format="svg")
    return base64.b64encode(svg.getvalue()).decode()


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
            digest = "já não está cá"
        rows.append((what, path, "—" if count is None else decimal(count, 0), digest))
    cut = f"; {started.truncated_rows} linhas cortadas" if started and started.truncated_rows else ""
    return Table(
        rows,
        columns=["Conjunto", "Ficheiro", "Linhas", "SHA-256 (hoje)"],
        caption=f"Comprimento máximo: {config.max_seq_length} tokens{cut}",
        formats={"Linhas": str},
    )


def _evaluation_table(run: Run) -> Table | None:
    """The stored evaluation, before (if it was measured) and after training; None when there is none."""
    try:
        stored: dict[str, Any] = json.loads((run.folder / STORED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{run.folder / STORED} não se lê: repita a avaliação ou apague-o") from None
    before = {one["name"]: one for one in stored.get("before", [])}
    rows: list[tuple[str, ...]] = []

    def add(name: str, new: dict[str, Any], old: dict[str, Any] | None) -> None:
        shares = [percent(one[key]) if one else "—" for key in ("exact_match", "f1") for one in (old, new)]
        rows.append((name, str(new["count"]), *shares))

    for one in stored["after"]:
        old = before.get(one["name"])
        add(one["name"], one, old)
        for kind, score in one["by_kind"].items():
            add(f"– {LABELS.get(kind, kind)}", score, old and old["by_kind"].get(kind))
    numbers = ["Perguntas", "Certas antes", "Certas depois", "F1 antes", "F1 depois"]
    caption = tokens_text(TokenScores(**stored["tokens"]))
    return Table(rows, columns=["", *numbers], caption=caption, formats=dict.fromkeys(numbers, str))
