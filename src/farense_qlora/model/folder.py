"""The folder of a base model: found or downloaded, checked, and made such that mlx-lm reads it right."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from mlx_lm import convert
from mlx_lm.utils import load_config

from ..config import CACHE, HOME, ROOT
from ..errors import UserError
from .rope import in_old_keys

MINIATURE = ROOT / "data" / "miniature" / "model"
GROUP_SIZE = 64
TEMPLATE = "chat_template.jinja"
AGAIN = "descarregue o modelo outra vez"


def find_model(name: str) -> Path:
    """The folder of `name`, downloaded from the hub if it is not a folder here; raises `UserError`."""
    if (path := _here(name)) is not None:
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"não encontro a pasta do modelo: {name}")
    from huggingface_hub import snapshot_download
    from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

    try:
        patterns = [pattern for pattern in DEFAULT_ALLOW_PATTERNS if pattern != "*.py"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises a dozen unrelated types when it cannot be reached
        raise UserError(
            f"não consigo obter o modelo {name} do Hugging Face Hub ({type(error).__name__}): ligue-se à "
            "rede (e, se o modelo o pedir, faça «hf auth login») ou indique em «model» uma pasta local"
        ) from error


def name_for_mlx_lm(name: str) -> str:
    """What plain mlx-lm is to be given for the model `name`: that, or a folder of ours on this machine where
    it would read another model, or none, from there."""
    from huggingface_hub import try_to_load_from_cache

    path = _here(name)
    if path is None and name.count("/") == 1:
        config = try_to_load_from_cache(name, "config.json")
        path = Path(config).parent if isinstance(config, str) else None
    if path is None or path == MINIATURE or (read := for_mlx_lm(path)) == path:
        return str(MINIATURE) if name == "mini" else name
    return str(read)


def _here(name: str) -> Path | None:
    if name == "mini":
        return MINIATURE
    local = Path(name).expanduser()
    return next((path for path in (local, HOME / local) if path.is_dir()), None)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in the folder `path`; raises `UserError` when it or some of the weights are not
    there, or not whole."""
    if not (path / "config.json").exists():
        raise UserError(f"a pasta {path} não tem um modelo: falta config.json")
    weights = {file.name for file in path.glob("model*.safetensors")}
    if not weights:
        raise UserError(f"a pasta {path} não tem pesos (model*.safetensors)")
    try:
        config = load_config(path)
    except ValueError as error:
        raise UserError(f"{path / 'config.json'} não é JSON válido: {_one_line(error)}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{path / 'config.json'} não diz de que tipo é o modelo (model_type): {AGAIN}")
    if missing := sorted(_shards(path, weights) - weights):
        raise UserError(f"a pasta {path} não tem todos os pesos (falta {', '.join(missing[:3])}): {AGAIN}")
    for name in sorted(weights):
        if not _is_whole(path / name):
            raise UserError(f"{path / name} está danificado ou incompleto: {AGAIN}")
    return config


def _shards(path: Path, weights: set[str]) -> set[str]:
    """The files that the weights are in, by their index or else by their own names («2 of 5»)."""
    try:
        index = json.loads((path / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return {str(name) for name in index["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        parts = [re.fullmatch(r"(model-)\d{5}(-of-(\d{5})\.safetensors)", name) for name in weights]
        return {
            f"{part[1]}{number:05}{part[2]}"
            for part in parts
            if part
            for number in range(1, int(part[3]) + 1)
        }


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its head says."""
    size = file.stat().st_size
    with open(file, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length:
            return False
        try:
            head = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return size >= 8 + length + int(max(ends, default=0))


def for_mlx_lm(path: Path) -> Path:
    """The folder `path`, or one like it in which mlx-lm finds what it would miss: rotary positions as
    Transformers 5 writes them, a chat template in a file of its own kind."""
    files = {}
    with suppress(OSError, ValueError):  # `read_config` says what is wrong with it
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, dict) and (changed := in_old_keys(config)) != config:
            files["config.json"] = json.dumps(changed, indent=2) + "\n"
    if not (path / TEMPLATE).exists() and (path / "chat_template.json").exists():
        with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
            settings = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
            if not settings.get("chat_template"):
                files[TEMPLATE] = _json_template(path / "chat_template.json")
    return with_files(path, files) if files else path


def _json_template(file: Path) -> str:
    """The chat template in a chat_template.json: a text, or a list of named ones."""
    found = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    if isinstance(found, list):
        found = next(template["template"] for template in found if template["name"] == "default")
    if not isinstance(found, str):
        raise TypeError(type(found))
    return found


def with_files(path: Path, files: dict[str, str]) -> Path:
    """A folder with all that `path` has, by links, but with `files` (texts by name) in place of its own."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for file in path.iterdir():
            if file.name not in files:
                _link(file.resolve(), folder / file.name)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")

    stamp = sha256(f"{path.resolve()} {_stamp(path)} {json.dumps(files, sort_keys=True)}".encode())
    return _once(CACHE / "models" / f"{path.resolve().name}-{stamp.hexdigest()[:12]}", make)


def quantized_copy(path: Path) -> Path:
    """The 4-bit copy of the model in `path`, made once; a change of the weights makes another."""

    def make(folder: Path) -> None:
        with redirect_stdout(StringIO()):
            convert(str(path), str(folder), quantize=True, q_group_size=GROUP_SIZE, q_bits=4)

    return _once(CACHE / "models" / f"{path.resolve().name}-4bit-{_stamp(path)}", make)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # a disk that has no links
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


def _stamp(path: Path) -> str:
    """A word that changes with the files of the folder `path`."""
    stamp = sha256()
    for file in sorted(path.glob("*")):
        stamp.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    return stamp.hexdigest()[:12]


def _once(target: Path, make: Callable[[Path], object]) -> Path:
    """The folder `target`, which `make` makes, whole, if it is not there."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            make(partial)
            os.rename(partial, target)
        except OSError:
            if not target.exists():  # else another process was quicker
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
