"""What an export says of itself: to programs in `metadata.json`, and read from there, to people in a model
card and an integration guide, made for that very folder."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..answers.generate import MAX_TOKENS
from ..config import TRAIN_DATA, Config
from ..data.rows import Row
from ..errors import UserError
from ..model.folder import name_for_mlx_lm
from ..templates import render
from ..training.checkpoints import contents, latest, measured, versions
from ..training.events import Finished, Merged, Stepped, last, of
from ..training.numbers import numbers
from ..training.run import Run
from .formats import GGUF, LORA_GGUF

METADATA, REPORT = "metadata.json", "verification.json"
QUESTION = "Quando foi fundado o Farense?"
SIMPLE = re.compile(r"[^\"'$`\\!\n]+")  # what stands between quotation marks as it is, in a shell and in JSON
WHAT = {
    "mlx": "Adaptador LoRA no formato do mlx-lm",
    "peft": "Adaptador LoRA no formato do PEFT (PyTorch)",
    "fused": "Modelo completo em 16 bits (float16), com o adaptador nos pesos, para mlx-lm e Transformers",
    "fused-4bit": "Modelo completo em 4 bits, com o adaptador nos pesos, para o mlx-lm",
    "gguf": "Modelo completo num ficheiro GGUF, com o adaptador nos pesos, para o llama.cpp",
    "gguf-lora": "Só o adaptador, em GGUF, para o llama.cpp o pôr sobre a base em GGUF",
    "ollama": "Modelo completo em GGUF e o seu Modelfile, para o Ollama",
}
LIBRARY = {"peft": "peft", "gguf": "gguf", "gguf-lora": "gguf", "ollama": "gguf"}  # the others are mlx's


def metadata(run: Run, format: str = "mlx") -> dict[str, Any]:
    """What a program wants to know of the adapter of `run`, always in the same words: losses in nats a
    supervised token, times in seconds, memory in GB; None is what is not known."""
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


def example(config: Config, rows: Iterable[Row]) -> str:
    """A question to show how one asks: of the club, or else the first simple one of the validation `rows`."""
    if config.train_data == TRAIN_DATA:
        return QUESTION
    asked = (row.messages[-2]["content"] for row in rows if len(row.messages) > 1)
    return next(filter(SIMPLE.fullmatch, asked), "Olá, quem é?")


def model_card(about: dict[str, Any], report: Any, folder: Path, question: str = QUESTION) -> str:
    """The README, in Portuguese and with the header that the hub reads, of the export in `folder` that is
    `about` (its metadata) and was checked as `report` says (a `Verification`)."""
    return _render("README.md.j2", about, folder, question=question, report=report)


def integration_guide(about: dict[str, Any], folder: Path, question: str = QUESTION) -> str:
    """How a program asks what is in `folder`: from Python, a shell, HTTP and Node with Express."""
    return _render("INTEGRATION_GUIDE.md.j2", about, folder, question=question)


def _render(template: str, about: dict[str, Any], folder: Path, **values: object) -> str:
    config = Config.parse(about["config"])
    kind = re.sub("-(bf16|q[4568]_.*)$", "", about["format"])  # another size, asked in the same way
    return render(
        f"exporting/templates/{template}",
        about=about,
        config=config,
        kind=kind,
        what=WHAT[kind],
        library=LIBRARY.get(kind, "mlx"),
        on_the_hub=config.model.count("/") == 1 and not config.model.startswith((".", "/", "~")),
        base=name_for_mlx_lm(config.base_model),
        folder=folder,
        gguf=folder / GGUF,
        lora=folder / LORA_GGUF,
        modelfile=folder / "Modelfile",
        name=re.sub("[^A-Za-z0-9_.-]+", "-", folder.name),  # as Ollama takes it
        of_the_club=config.train_data == TRAIN_DATA,
        max_tokens=MAX_TOKENS,
        **values,
    )
