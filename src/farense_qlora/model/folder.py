"""The folder of a base model: checked, and made such that mlx-lm reads it right."""

import errno
import json
import re
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from fcntl import LOCK_EX, flock
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

from mlx_lm import convert
from mlx_lm.utils import load_config
from safetensors import SafetensorError, safe_open

from ..config import CACHE, Config
from ..errors import UserError
from ..files import atomic_dir, in_icloud
from .download import MINIATURE, local_folder
from .rope import in_old_keys

GROUP_SIZE = 64
TEMPLATE = "chat_template.jinja"
PIECES = "tokenizer.model"  # what tokenizer.json was made from, if that was SentencePiece
AGAIN = "descarregue o modelo outra vez"


def name_for_mlx_lm(name: str) -> str:
    """What plain mlx-lm is to be given for the model `name`: that, or a folder of ours on this machine where
    it would read another model, or none, from there."""
    from huggingface_hub import try_to_load_from_cache

    path = local_folder(name)
    if path is None and name.count("/") == 1:
        config = try_to_load_from_cache(name, "config.json")
        path = Path(config).parent if isinstance(config, str) else None
    if path is None or path == MINIATURE or (read := for_mlx_lm(path)) == path:
        return str(MINIATURE) if name == "mini" else name
    return str(read)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration in the folder `path`; raises `UserError` when it or some of the weights are not
    there, or not whole."""
    if not (path / "config.json").exists():
        raise UserError(f"a pasta {path} não tem um modelo: falta config.json{in_icloud(path)}")
    weights = {file.name for file in path.glob("model*.safetensors")}
    if not weights:
        raise UserError(f"a pasta {path} não tem pesos (model*.safetensors){in_icloud(path)}")
    try:
        config = load_config(path)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path / 'config.json'} não é JSON válido: {said}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{path / 'config.json'} não diz de que tipo é o modelo (model_type): {AGAIN}")
    if missing := sorted(_shards(path, weights) - weights):
        away = in_icloud(path) or f": {AGAIN}"
        raise UserError(f"a pasta {path} não tem todos os pesos (falta {', '.join(missing[:3])}){away}")
    for name in sorted(weights):
        try:
            with safe_open(path / name, "np"):  # reads the head, and whether the file is as long as that says
                pass
        except SafetensorError:
            raise UserError(f"{path / name} está danificado ou incompleto: {AGAIN}") from None
    return config


def _shards(path: Path, weights: set[str]) -> set[str]:
    """The files that the weights are in, by their index or else by their own names («2 of 5»)."""
    try:
        index = json.loads((path / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return set(index["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        totals = set(re.findall(r"model-\d{5}-of-(\d{5})\.safetensors", " ".join(weights)))
        return {f"model-{n:05}-of-{total}.safetensors" for total in totals for n in range(1, int(total) + 1)}


def for_mlx_lm(path: Path) -> Path:
    """The folder `path`, or one like it in which mlx-lm finds what it would miss: rotary positions as
    Transformers 5 writes them, a chat template in a file of its own kind."""
    files = {}
    with suppress(OSError, ValueError):  # `read_config` says what is wrong with it
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if isinstance(config, dict) and (changed := in_old_keys(config)) != config:
            files["config.json"] = json.dumps(changed, indent=2) + "\n"
    with suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
        settings = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = json.loads((path / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
        if isinstance(template, list):  # of named ones
            template = next(one["template"] for one in template if one["name"] == "default")
        own = (path / TEMPLATE).exists() or settings.get("chat_template")
        if isinstance(template, str) and not own:
            files[TEMPLATE] = template
    return with_files(path, files) if files else path


def with_files(path: Path, files: dict[str, str]) -> Path:
    """A folder with all that `path` has, by links, but with `files` (texts by name) in place of its own."""

    def make(folder: Path) -> None:
        for file in path.iterdir():
            if file.name not in files:
                _link(file.resolve(), folder / file.name)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")

    stamp = sha256(f"{path.resolve()} {_stamp(path)} {json.dumps(files, sort_keys=True)}".encode())
    return _once(f"{path.resolve().name}-{stamp.hexdigest()[:12]}", make)


def quantized_copy(path: Path, config: Config) -> Path:
    """The copy of the model in `path`, quantized as `config` says; made once, and again when the weights have
    changed."""
    mode, bits = config.quantization, config.bits
    group_size = config.group_size if mode == "affine" else None  # the others have their own
    kind = f"{bits}bit" if mode == "affine" else mode
    if config.group_size != GROUP_SIZE:
        kind += f"-{config.group_size}"

    def make(folder: Path) -> None:
        folder.rmdir()  # `convert` wants to make it
        try:
            with redirect_stdout(StringIO()):
                convert(str(path), str(folder), True, group_size, bits, mode)
            if (path / PIECES).exists():
                shutil.copyfile(path / PIECES, folder / PIECES)
        except RuntimeError as error:
            if "Unable to write" in str(error):  # all that MLX says of a full disk
                raise OSError(errno.ENOSPC, str(error), str(folder)) from None
            raise

    return _once(f"{path.resolve().name}-{kind}-{_stamp(path)}", make)


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


def _once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of the cache, which `make` fills if it is not there; another process that needs it
    meanwhile waits. Raises `OSError`, or `UserError` that says the same."""
    target = CACHE / "models" / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target.with_name(f".{name}.lock"), "w") as lock:
            flock(lock, LOCK_EX)
            if not target.exists():
                with atomic_dir(target) as partial:
                    make(partial)
    return target
