"""Take an adapter home in the format of the tool that will ask it, checked by that very tool, with what it
is, where it comes from and how to ask it; what a person made or changed is replaced only when told to."""

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_config

from ..answers.generate import MAX_TOKENS
from ..config import HOME, OUTPUT, RUNS
from ..data.load import load_data
from ..errors import UserError
from ..files import Linked, atomic_dir, touched, write_checksums
from ..model.adapters import DESCRIPTION, WEIGHTS
from ..model.base import Base, load_base
from ..training.run import Run
from .converter import ADAPTER, MODEL, find_script
from .formats import (
    GGUF,
    K_QUANTS,
    LORA_GGUF,
    check_architecture,
    write_fused,
    write_gguf,
    write_gguf_lora,
    write_peft,
)
from .kinds import FORMATS
from .metadata import METADATA, REPORT, example, integration_guide, metadata, model_card
from .ollama import write_modelfile
from .verify import QUESTIONS, Progress, measure, need, verify

LATEST = "latest"
ADAPTER_FILES = (WEIGHTS, DESCRIPTION)


def export(
    run: Run,
    folder: Path | None = None,
    format: str = "mlx",
    questions: int = QUESTIONS,
    progress: Progress = lambda *_: None,
    replace: bool = False,
    converter: Path | None = None,
) -> Path:
    """Write the best adapter of `run` to `folder` (by default `export_folder`) in one of the `FORMATS`, in
    place of an earlier export of the same; `output/latest` then leads there. What its own tool does not read
    as the trained model is not kept: all or nothing.

    The check asks `questions` of the validation rows that training measured; `progress` is told what is being
    looked at, how many of them are done and of how many. GGUF is written by the `converter`, if one is given:
    the folder of llama.cpp, or its convert_hf_to_gguf.py. Raises `UserError` when the run has no adapter, the
    tool is not installed, the converter or the check fails, `folder` cannot be written or, unless `replace`,
    holds anything else: an export of another run or format, or one that somebody has changed.

    >>> fq.export(run, folder / "adaptador", questions=2).name
    'adaptador'
    """
    folders = {format: folder or export_folder(run, format)}
    (to,) = exports(run, folders, questions, progress, replace, converter)
    return to


def exports(
    run: Run,
    folders: Mapping[str, Path],
    questions: int = QUESTIONS,
    progress: Progress = lambda *_: None,
    replace: bool = False,
    converter: Path | None = None,
) -> Iterator[Path]:
    """`export` in several formats, each to its folder, which is yielded as soon as it is checked. The trained
    model is asked once for them all; where one cannot be written, none is begun."""
    targets = {}
    for format, folder in folders.items():
        if format not in FORMATS:
            raise UserError(f"não sei exportar como «{format}»: escolha um de {', '.join(FORMATS)}")
        to = folder.resolve() if folder.is_symlink() or folder.name in ("", "..") else folder
        _check_free(to, run, metadata(run, format), replace)
        need(FORMATS[format].tool)
        targets[format] = to
    in_gguf = [format for format in targets if FORMATS[format].tool == "llama"]
    if converter and not in_gguf:
        raise UserError(
            "o conversor só escreve GGUF: peça um formato «gguf» ou «ollama», ou tire --converter"
        )
    if converter:
        for format in in_gguf:
            find_script(converter, ADAPTER if format == "gguf-lora" else MODEL)
    base, adapter = load_base(run.config), run.best_adapter
    if in_gguf and not converter:
        check_architecture(load_config(base.path))
    validation = load_data(run.config, base).validation
    reference = measure(base, adapter, validation, questions, progress)
    question = example(run.config, (row for _, row in validation.rows()))
    base = changed(base, model=nn.Module())  # the tools are about to load it too
    gc.collect()
    mx.clear_cache()
    for format, to in targets.items():
        about, kind, alone = metadata(run, format), FORMATS[format].matrices, None
        with atomic_dir(to) as partial, tempfile.TemporaryDirectory(prefix="farense-export-") as temporary:
            model, loaded = _write(
                format, base, adapter, to.name, partial, Path(temporary), reference.dtype, converter
            )
            if kind in K_QUANTS:  # what packing costs the base, by which to judge what it costs here
                alone = Path(temporary) / GGUF
                write_gguf(base, None, to.name, kind, alone, converter)
            report = verify(reference, format, model, loaded, progress, alone)
            if report.failures:
                why = "; ".join(report.failures)
                raise UserError(
                    f"a exportação «{format}» não passou na verificação e não foi guardada: {why}"
                )
            texts = {
                REPORT: _json({**asdict(report), "passed": True}),
                METADATA: _json(about),
                "README.md": model_card(about, report, to, question),
                "INTEGRATION_GUIDE.md": integration_guide(about, to, question),
            }
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8")
            write_checksums(partial)
        _point_at(to)
        yield Linked(to)


def _json(about: dict[str, Any]) -> str:
    return json.dumps(about, ensure_ascii=False, indent=2) + "\n"


def _check_free(to: Path, run: Run, about: dict[str, Any], replace: bool) -> None:
    """Raise `UserError` unless an export that is `about` the `run` may take the place of what `to` holds."""
    if to.exists() and not to.is_dir():
        raise UserError(f"{to} é um ficheiro: indique uma pasta")
    precious = (HOME, OUTPUT, RUNS, run.folder, Path.cwd(), Path(os.path.expanduser("~")))
    if any(path.resolve().is_relative_to(to.resolve()) for path in precious):
        raise UserError(f"{to} não é só de uma exportação, e seria substituída toda: indique outra pasta")
    if not to.exists() or not any(to.iterdir()):
        return
    try:
        found = json.loads((to / METADATA).read_text(encoding="utf-8"))
        same = all(found.get(key) == about[key] for key in ("run", "began", "format"))
        why = touched(to) if same else f"tem a exportação «{found['format']}» do treino «{found['run']}»"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{to} já existe e não é uma exportação: indique outra pasta") from None
    if why and not replace:
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


def _write(
    format: str,
    base: Base,
    adapter: Path,
    name: str,
    to: Path,
    temporary: Path,
    dtype: mx.Dtype,
    converter: Path | None = None,
) -> tuple[Path, Path | None]:
    """Write what the format itself asks for to the folder `to`; returns the model that its tool is to load,
    and the adapter on it. `temporary` is for a base that lies nowhere as the tool can read it, in the `dtype`
    that the trained model computes in."""
    try:
        if format == "mlx":
            for file in ADAPTER_FILES:
                shutil.copyfile(adapter / file, to / file)
            return base.path, to
        if format == "peft":
            write_peft(adapter, base.name, to)
            if base.bits == 16:
                return base.path, to
            # PEFT takes no MLX quantization: here are the very weights, as large as they are computed with.
            write_fused(base, None, temporary, dtype=dtype)
            return temporary, to
        if format in ("fused", "fused-4bit"):
            write_fused(base, adapter, to, bits=4 if format == "fused-4bit" else 16)
            return to, None
        if format == "gguf-lora":
            write_gguf(base, None, name, "f16", temporary / GGUF, converter)
            write_gguf_lora(adapter, load_config(base.path), name, to / LORA_GGUF, converter)
            return temporary / GGUF, to / LORA_GGUF
        write_gguf(base, adapter, name, FORMATS[format].matrices, to / GGUF, converter)
        if format.startswith("ollama"):
            write_modelfile(base.tokenizer, MAX_TOKENS, to)
        return to / GGUF, None
    except RuntimeError as error:  # mlx, when it cannot write
        raise UserError(f"não consigo escrever em {to.parent}: {error}") from None


def push(folder: Path, repository: str) -> str:
    """Send the export in `folder` to `repository` (owner/name) on the hub; returns its address. A new one is
    private: its owner can open it, but nobody can take it back. Raises `UserError` when it cannot."""
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


def export_folder(run: Run, format: str = "mlx") -> Path:
    """Where `run` is exported to when nobody says otherwise: a folder for each run and format."""
    return OUTPUT / f"{run.name}-{format}"
