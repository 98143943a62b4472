"""What an export says of itself to programs: written beside it, and read from there."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import UserError
from ..training.checkpoints import contents, latest, measured, versions
from ..training.events import Finished, Merged, Stepped, last, of
from ..training.numbers import numbers
from ..training.run import Run

METADATA, REPORT = "metadata.json", "verification.json"


def metadata(run: Run, format: str = "mlx") -> dict[str, Any]:
    """What a program wants to know of the adapter of `run`; the same run and data give the same words.

    Losses are in nats a supervised token, times in seconds, memory in GB; None is what is not known.
    """
    config, events, checkpoint = run.config, run.events(), latest(run.folder)
    digests = contents(checkpoint).get("data", {}) if checkpoint else {}
    now, exported, ended = numbers(events), measured(run.best_adapter, events), last(events, Finished)
    merged = last(events, Merged)
    return {
        "format": format,
        "base_model": config.base_model,
        "bits": config.bits,
        "run": run.name,
        "merged": list(zip(merged.runs, merged.weights, strict=True)) if merged else None,
        "began": events[0].time if events else None,
        "config": config.model_dump(mode="json"),
        "data": {
            "train": {"path": config.train_data, "sha256": digests.get("train_data")},
            "validation": {"path": config.val_data, "sha256": digests.get("val_data")},
        },
        "metrics": {
            "steps": now.step,
            "planned_steps": now.total_steps,
            "train_loss": now.loss,
            "val_loss": exported["loss"],
            "best_step": exported["step"],
            "supervised_tokens": sum(step.supervised_tokens for step in of(events, Stepped)),
            "seconds": now.seconds,
            "peak_memory_gb": now.peak_memory_gb,
            "ended": ended and ended.reason,
        },
        "trained": f"{datetime.fromtimestamp(events[-1].time, UTC):%Y-%m-%d}" if events else None,
        "versions": versions(),
    }


def exported_config(folder: Path) -> Config:
    """The config of the adapter that `export` wrote to `folder`; raises `UserError` if it is no export that
    this program asks."""
    if not folder.is_dir():
        raise UserError(f"não encontro a pasta do adaptador: {folder}")
    try:
        about = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        config, kind = Config.parse(about["config"]), about.get("format", "mlx")
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"a pasta {folder} não é um adaptador feito por «farense-qlora export»: {METADATA} falta ou está "
            "estragado"
        ) from None
    if kind != "mlx":
        raise UserError(f"{folder} foi exportado como «{kind}»; aqui só se pergunta ao formato «mlx»")
    return config


def verification(folder: Path) -> dict[str, Any]:
    """What the check of the export in `folder` found."""
    report: dict[str, Any] = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return report
