"""Load a base model: the miniature, a local folder or a hub id, in 4 bits, ready for this device."""

import os
import shutil
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm import convert
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, get_total_parameters, load_config, load_model, load_tokenizer

from ..config import CACHE, HOME
from ..errors import UserError
from .machine import memory_bytes, memory_limit, on_cpu
from .ops import keeps_dense, use_cpu_operations

MINIATURE = Path(__file__).parent / "miniature"
GROUP_SIZE = 64
# Bytes of temporary arrays up to which MLX runs ahead with a large model on the CPU.
RUN_AHEAD = 500_000_000


@dataclass(frozen=True)
class Base:
    """A loaded base model with its tokenizer; `path` is what mlx-lm loads, `name` what was asked."""

    model: nn.Module
    tokenizer: TokenizerWrapper
    path: Path
    name: str
    bits: int
    parameters: int
    size_gb: float
    load_seconds: float


def load_base(name: str, bits: int = 4, chat_template: str = "") -> Base:
    """Load `name` ("mini", a folder, or a hub id); with `bits` 4 a 16-bit model is quantized once and cached.

    The miniature ships in 4 bits; with `bits` 16 its weights are those, dequantized. Raises `UserError` when
    the model is missing, incomplete or cannot be had.
    """
    start = time.perf_counter()
    path = find_model(name)
    config = _read_config(path)
    quantized = "quantization" in config or "quantization_config" in config
    if bits == 16 and quantized and path != MINIATURE:
        raise UserError(f"o modelo {name} já vem quantizado: para LoRA simples indique o modelo de 16 bits")
    if bits == 4 and not quantized:
        path = _quantized_copy(path)
    try:
        model, config = load_model(path, lazy=True)  # `make_ready` has its say first
        tokenizer = load_tokenizer(path, eos_token_ids=config.get("eos_token_id"))
    except FileNotFoundError:
        raise UserError(f"a pasta {path} não tem pesos (model*.safetensors)") from None
    except (ValueError, OSError) as error:
        raise UserError(f"não consigo carregar o modelo {path}: {_one_line(error)}") from None
    if tokenizer.chat_template is None and not tokenizer.has_chat_template:
        raise UserError(
            f"o modelo {name} não tem modelo de conversa (chat template); use a variante Instruct"
        )
    if bits == 16 and quantized:
        dequantize_model(model)
    make_ready(model)
    size = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    return Base(
        model,
        tokenizer,
        path,
        name,
        bits,
        get_total_parameters(model),
        size / 1e9,
        time.perf_counter() - start,
    )


def make_ready(model: nn.Module) -> None:
    """Freeze `model`, let it compute as is fastest on this device, and bring its weights into memory."""
    if on_cpu():
        # 16-bit floats have no fast path on the CPU, and mlx's small compiled kernels need g++ at run time.
        mx.disable_compile()
        model.set_dtype(mx.float32)
        use_cpu_operations(model)
    else:
        mx.set_cache_limit(memory_bytes() // 8)  # what MLX may keep of freed memory
        if mx.metal.is_available():
            mx.set_wired_limit(memory_limit())  # weights stay in memory, as far as macOS recommends
    model.freeze()
    mx.eval(model.parameters())
    if on_cpu() and not keeps_dense(model):
        # Past this MLX waits for what it has begun before it begins more: weights made for it do not pile up.
        mx.set_memory_limit(mx.get_active_memory() + RUN_AHEAD)


def find_model(name: str) -> Path:
    """The folder of `name`, downloaded from the hub if it is not a folder here; raises `UserError`."""
    if name == "mini":
        return MINIATURE
    local = Path(name).expanduser()
    for path in (local, HOME / local):
        if path.is_dir():
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


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / "config.json").exists():
        raise UserError(f"a pasta {path} não tem um modelo: falta config.json")
    if not any(path.glob("model*.safetensors")):
        raise UserError(f"a pasta {path} não tem pesos (model*.safetensors)")
    try:
        return load_config(path)
    except ValueError as error:
        raise UserError(f"{path / 'config.json'} não é JSON válido: {_one_line(error)}") from None


def _quantized_copy(path: Path) -> Path:
    """The 4-bit copy of the model in `path`, made once; a change of the weights makes another."""
    stamp = sha256()
    for file in sorted(path.glob("*")):
        stamp.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    cache = CACHE / "models"
    target = cache / f"{path.resolve().name}-4bit-{stamp.hexdigest()[:12]}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{target.name}.{os.getpid()}"
        try:
            with redirect_stdout(StringIO()):
                convert(str(path), str(partial), quantize=True, q_group_size=GROUP_SIZE, q_bits=4)
            os.rename(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
