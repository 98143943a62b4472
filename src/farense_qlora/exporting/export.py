"""Take an adapter home in the format of the tool that will ask it, checked by that very tool, with what it
is, where it comes from and how to ask it; what a person made or changed is replaced only when told to."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..answers.generate import MAX_TOKENS
from ..config import HOME, OUTPUT, RUNS, Config
from ..errors import UserError
from ..files import atomic_dir, touched, write_checksums
from ..model.base import Base
from ..training.checkpoints import latest, versions
from ..training.events import Evaluated, Event, Finished, Stepped, best_of
from ..training.run import Run
from .cards import integration_guide, model_card
from .formats import GGUF, write_fused, write_gguf, write_modelfile, write_peft
from .verify import EIGHT_BITS, EXACT, FOUR_BITS, QUESTIONS, REPORT, Limits, Progress, Reference, need

METADATA = "metadata.json"
LATEST = "latest"
ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class Format:
    """A format: who reads it, and how near to the trained model it must be."""

    tool: str
    limits: Limits = EXACT


FORMATS = {
    "mlx": Format("mlx"),
    "peft": Format("peft"),
    "fused": Format("mlx"),
    "fused-4bit": Format("mlx", FOUR_BITS),
    "gguf": Format("llama"),
    "ollama": Format("llama"),
}


def export(
    run: Run,
    to: Path,
    kind: str = "mlx",
    gguf_type: str = "f16",
    questions: int = QUESTIONS,
    progress: Progress = lambda *_: None,
    replace: bool = False,
) -> Path:
    """Write the best adapter of `run` to the folder `to` as `kind` (one of `FORMATS`), in place of an earlier
    export of the same; `output/latest` then leads there. What its own consumer does not read as the trained
    model is not kept: all or nothing.

    The check asks `questions` of the validation set; `progress` is told what is being looked at, how many of
    them are done and of how many. Raises `UserError` when the run has no adapter, the consumer is not
    installed, the check fails, `to` cannot be written or, unless `replace`, holds anything else: an export of
    another run or format, or one that somebody has changed.
    """
    adapter, about = run.best_adapter, metadata(run, kind)
    to = to.resolve() if to.is_symlink() or to.name in ("", "..") else to
    _check_free(to, run, about, replace)
    need(FORMATS[kind].tool)
    limits = EIGHT_BITS if gguf_type == "q8_0" and kind in ("gguf", "ollama") else FORMATS[kind].limits
    with atomic_dir(to) as folder:
        reference = Reference(run.config, adapter, questions, progress)
        base = reference.base
        _write(kind, gguf_type, base, adapter, to.name, run.config, folder)
        with tempfile.TemporaryDirectory(prefix="farense-export-") as temporary:
            model, loaded = _read_as(kind, base, folder, Path(temporary))
            del base
            reference.forget_base()
            report = reference.compare(kind, FORMATS[kind].tool, model, loaded, limits, progress)
        if report.failures:
            why = "; ".join(report.failures)
            raise UserError(f"a exportação «{kind}» não passou na verificação e não foi guardada: {why}")
        report.write(folder)
        texts = {
            METADATA: json.dumps(about, ensure_ascii=False, indent=2) + "\n",
            "README.md": model_card(about, verification(folder), to),
            "INTEGRATION_GUIDE.md": integration_guide(about, to),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_checksums(folder)
    _point_at(to)
    return to


def _check_free(to: Path, run: Run, about: dict[str, Any], replace: bool) -> None:
    """Raise `UserError` unless an export that is `about` the `run` may take the place of what `to` holds."""
    if to.exists() and not to.is_dir():
        raise UserError(f"{to} é um ficheiro: indique uma pasta")
    precious = (HOME, OUTPUT, RUNS, run.folder, Path.cwd(), Path(os.path.expanduser("~")))
    if any(path.resolve().is_relative_to(to.resolve()) for path in precious):
        raise UserError(f"{to} não é só de uma exportação, e seria substituída toda: indique outra pasta")
    if replace or not to.exists() or not any(to.iterdir()):
        return
    try:
        found = json.loads((to / METADATA).read_text(encoding="utf-8"))
        same = all(found.get(key) == about[key] for key in ("run", "began", "format"))
        why = touched(to) if same else f"tem a exportação «{found['format']}» do treino «{found['run']}»"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        why = "não é uma exportação"
    if why:
        raise UserError(
            f"{to} já existe e {why}: indique outra pasta, ou substitua-a toda com --replace (em Python, "
            "replace=True)"
        )


def _point_at(folder: Path) -> None:
    """Let the link `output/latest` lead to `folder`; not where the disk has no links, and not in place of
    something that somebody put there."""
    link, partial = OUTPUT / LATEST, OUTPUT / f".{LATEST}.{os.getpid()}"
    if os.path.lexists(link) and not link.is_symlink():
        return
    with suppress(OSError):
        OUTPUT.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        partial.symlink_to(os.path.relpath(folder.resolve(), OUTPUT.resolve()), target_is_directory=True)
        os.replace(partial, link)


def _write(kind: str, gguf_type: str, base: Base, adapter: Path, name: str, config: Config, to: Path) -> None:
    """Write what the format itself asks for to the folder `to`."""
    try:
        if kind == "mlx":
            for file in ADAPTER_FILES:
                shutil.copyfile(adapter / file, to / file)
        elif kind == "peft":
            write_peft(adapter, config.model, to)
        elif kind in ("fused", "fused-4bit"):
            write_fused(base.path, adapter, base.tokenizer, to, bits=4 if kind == "fused-4bit" else 16)
        else:
            write_gguf(base.path, adapter, base.tokenizer, name, gguf_type, to / GGUF)
            if kind == "ollama":
                write_modelfile(base.tokenizer, MAX_TOKENS, to)
    except RuntimeError as error:  # mlx, when it cannot write
        raise UserError(f"não consigo escrever em {to.parent}: {error}") from None


def _read_as(kind: str, base: Base, folder: Path, temporary: Path) -> tuple[Path, Path | None]:
    """The model and the adapter that the consumer of `kind` is given to read `folder`."""
    if kind == "mlx":
        return base.path, folder
    if kind == "peft":
        if base.bits < 16:  # PEFT takes no MLX quantization: here are the very weights, in float32
            write_fused(base.path, None, base.tokenizer, temporary, dtype=mx.float32)
        return (temporary if base.bits < 16 else base.path), folder
    return (folder / GGUF if kind in ("gguf", "ollama") else folder), None


def push(folder: Path, repository: str) -> str:
    """Send the export in `folder` to `repository` (owner/name) on the hub; returns its address.

    One that does not exist yet is made private: its owner can open it, but nobody can take it back.
    Raises `UserError` when it cannot.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        address = hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the hub's client raises a dozen unrelated types when it cannot be reached
        raise UserError(
            f"exportado para {folder}, mas não consigo enviá-lo para {repository} ({type(error).__name__}): "
            "ligue-se à rede, faça «hf auth login» e repita"
        ) from error
    return str(address)


def export_folder(run: Run, kind: str = "mlx") -> Path:
    """Where `run` is exported to as `kind` when nobody says otherwise: a folder for each run and format."""
    return OUTPUT / f"{run.name}-{kind}"


def exported_config(folder: Path) -> Config:
    """The config of the adapter that `export` wrote to `folder`; raises `UserError` if it is no export that
    this program asks."""
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


def metadata(run: Run, kind: str = "mlx") -> dict[str, Any]:
    """What a program wants to know of the adapter of `run`; the same run and data give the same words."""
    config, events = run.config, run.events()
    checkpoint = latest(run.folder)
    trained_on = json.loads((checkpoint / "state.json").read_text(encoding="utf-8")) if checkpoint else {}
    data = {
        name: {"path": path, "sha256": trained_on.get("data", {}).get(setting)}
        for name, setting, path in (
            ("train", "train_data", config.train_data),
            ("validation", "val_data", config.val_data),
        )
    }
    return {
        "format": kind,
        "base_model": config.model,
        "bits": config.bits,
        "run": run.name,
        "began": events[0].time if events else None,
        "config": config.model_dump(mode="json"),
        "data": data,
        "metrics": metrics(events),
        "trained": _day(events),
        "versions": versions(),
    }


def metrics(events: Sequence[Event]) -> dict[str, Any]:
    """The figures of a run: losses in nats a supervised token, times in seconds, memory in GB."""
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    finished = [event for event in events if isinstance(event, Finished)]
    best = best_of(evaluations)
    return {
        "steps": len(steps),
        "train_loss": steps[-1].loss if steps else None,
        "val_loss": best.loss if best else None,
        "best_step": best.step if best else None,
        "supervised_tokens": sum(event.supervised_tokens for event in steps),
        "seconds": sum(event.seconds for event in steps),
        "peak_memory_gb": max((event.peak_memory_gb for event in steps), default=None),
        "ended": finished[-1].reason if finished else None,
    }


def _day(events: Sequence[Event]) -> str | None:
    return datetime.fromtimestamp(events[-1].time, UTC).strftime("%Y-%m-%d") if events else None
