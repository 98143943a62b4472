"""Write a trained adapter as others want it: for PEFT, fused into the weights of its base, or as GGUF."""

import json
import os
import re
import shutil
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.gguf import permute_weights
from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import (
    dequantize_model,
    load_config,
    load_model,
    quantize_model,
    save_config,
    save_model,
)

from ..data.template import chat_template
from ..errors import UserError
from ..model.adapters import DESCRIPTION, WEIGHTS, save_arrays
from ..model.base import Base
from ..model.folder import GROUP_SIZE, PIECES
from .converter import ADAPTER, MODEL, convert, prepare
from .gguf_tokenizer import vocabulary

GGUF = "model.gguf"
LORA_GGUF = "adapter.gguf"
# Matrices that llama.cpp itself packs, out of those in f16; others are packed here.
K_QUANTS = ("q4_k_m", "q5_k_m", "q6_k")


def write_peft(adapter: Path, base: str, folder: Path) -> None:
    """The adapter for PEFT: its matrices transposed, under PEFT's names, and `lora_alpha = scale * rank`;
    raises `UserError` for one on experts."""
    lora, loaded = _adapter(adapter)
    if several := sorted({name.split(".")[-2] for name, array in loaded.items() if array.ndim > 2}):
        raise UserError(
            f"o PEFT não lê adaptadores em especialistas ({', '.join(several)}): exporte como «mlx» ou "
            "«fused», ou treine sem eles em target_modules"
        )
    matrices = {"lora_a": "lora_A", "lora_b": "lora_B"}
    weights = {}
    for name, array in loaded.items():
        layer, matrix = name.rsplit(".", 1)
        weights[f"base_model.model.{layer}.{matrices[matrix]}.weight"] = mx.contiguous(array.T)
    layers = {name.rsplit(".", 1)[0] for name in loaded}
    blocks = {found.groups() for layer in layers if (found := re.search(r"(\w+)\.(\d+)\.", layer))}
    save_arrays(folder / "adapter_model.safetensors", weights)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora["rank"],
        "lora_alpha": lora["scale"] * lora["rank"],
        "lora_dropout": lora["dropout"],
        "target_modules": sorted({layer.split(".")[-1] for layer in layers}),
        "layers_to_transform": sorted(int(number) for _, number in blocks),
        "layers_pattern": sorted({pattern for pattern, _ in blocks}),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / DESCRIPTION).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def fuse(base: Path, adapter: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model in the folder `base`, not quantized, in float32 and lazy, with `adapter` in its weights; and
    its config."""
    model, config = load_model(base, lazy=True)
    model.set_dtype(mx.float32)  # the scales too, by which the weights are made
    model = dequantize_model(model)
    for _, layer in model.named_modules():
        if isinstance(layer, QuantizedMultiLinear):  # DeepSeek's, which mlx-lm leaves as they are
            layer.weight = mx.dequantize(
                layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits, layer.mode
            )
            del layer.scales, layer.biases
            layer.__class__ = MultiLinear
    model.set_dtype(mx.float32)  # what is added to a weight in 16 bits, as mxfp4 gives them, may be lost
    if adapter:
        load_adapters(model, str(adapter))
        fused = [(name, layer.fuse()) for name, layer in model.named_modules() if "lora_a" in layer]
        model.update_modules(tree_unflatten(fused))
    # Transformers takes a «mistral» with layer types, even all alike, for another architecture; an «exaone4»
    # without a window must have them.
    plain = config["model_type"] == "mistral" and set(config.get("layer_types") or ()) <= {"full_attention"}
    for key in ("quantization", "quantization_config", *(("layer_types",) if plain else ())):
        config.pop(key, None)
    return model, config


def write_fused(
    base: Base, adapter: Path | None, folder: Path, bits: int = 16, dtype: mx.Dtype = mx.float16
) -> None:
    """A complete model: `adapter` in the weights of `base`, quantized again when `bits` is 4.

    In float16: bfloat16 has three bits fewer for the same size, and an update is small beside its weight.
    What quantization leaves as floats stays as the base has it.
    """
    tokenizer, (model, config) = base.tokenizer, fuse(base.path, adapter)
    if bits == 4:
        quantization = load_config(base.path).get("quantization", {})
        size, mode = quantization.get("group_size", GROUP_SIZE), quantization.get("mode", "affine")
        with redirect_stdout(StringIO()):
            model, config = quantize_model(model, config, size, 4, mode)
        dtype = getattr(mx, config.get("torch_dtype") or config.get("dtype") or "float16")
    model.set_dtype(dtype)
    config["torch_dtype"] = str(dtype).removeprefix("mlx.core.")
    save_model(folder, model, donate_model=True)  # a file of weights at a time in memory
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(str(folder))
    pieces = base.path / PIECES  # which Transformers does without, but not llama.cpp's converter
    if pieces.exists():
        shutil.copyfile(pieces, folder / PIECES)
    if isinstance(tokenizer.chat_template, str | None):  # with the date that it was trained with
        (folder / "chat_template.jinja").write_text(chat_template(tokenizer), encoding="utf-8")


def write_gguf(
    base: Base, adapter: Path | None, name: str, kind: str, path: Path, converter: Path | None = None
) -> None:
    """The fused model as one file for llama.cpp, its matrices as `kind`: f16, bf16, q8_0, `K_QUANTS`; by its
    own `converter` if one is given. Raises `UserError` when that fails or, without it, for an architecture or
    a tokenizer that llama.cpp would read in another way."""
    if kind in K_QUANTS:
        plain = path.with_suffix(".f16")
        write_gguf(base, adapter, name, "f16", plain, converter)
        _pack(plain, kind, path)
        plain.unlink()
        return
    if converter:
        with tempfile.TemporaryDirectory(dir=path.parent) as fused:
            dtype = mx.bfloat16 if kind == "bf16" else mx.float16
            write_fused(base, adapter, Path(fused), dtype=dtype)
            prepare(Path(fused), base.tokenizer)
            convert(converter, MODEL, fused, "--outfile", path, "--outtype", kind, f"--model-name={name}")
        return
    import gguf

    model, config = fuse(base.path, adapter)
    check_architecture(config)
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    groups = config.get("num_key_value_heads") or heads
    size = config.get("head_dim") or config["hidden_size"] // heads
    positions = config["max_position_embeddings"]
    facts = {
        "name": name,
        "languages": ["pt"],
        "file_type": gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"],
        "vocab_size": config["vocab_size"],
        "context_length": min(positions, config.get("sliding_window") or positions),
        "embedding_length": config["hidden_size"],
        "block_count": layers,
        "feed_forward_length": config["intermediate_size"],
        "head_count": heads,
        "head_count_kv": groups,
        "key_length": size,
        "value_length": size,
        "rope_dimension_count": size,
        "rope_freq_base": config.get("rope_theta", 10000.0),
        "layer_norm_rms_eps": config["rms_norm_eps"],
        **vocabulary(base.tokenizer, config["vocab_size"]),
    }
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    for fact, value in facts.items():
        getattr(writer, f"add_{fact}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    weights = dict(tree_flatten(model.parameters()))
    frequencies = getattr(model.layers[0].self_attn.rope, "_freqs", None)
    if frequencies is not None:  # Llama 3's, of which some are stretched
        factors = np.array(frequencies) / facts["rope_freq_base"] ** (np.arange(0, size, 2) / size)
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    del model
    for layer in list(weights):
        weight = _side_by_side(layer, np.array(weights.pop(layer)), config)  # computed here, nowhere kept
        number = gguf.GGMLQuantizationType[kind.upper() if weight.ndim > 1 else "F32"]
        stored = gguf.quants.quantize(np.ascontiguousarray(weight), number)
        writer.add_tensor(names.get_name(layer, try_suffixes=(".weight", ".bias")), stored, raw_dtype=number)
    _finish(writer)


def write_gguf_lora(
    adapter: Path, config: dict[str, Any], name: str, path: Path, converter: Path | None = None
) -> None:
    """The adapter alone for llama.cpp, to be put on a GGUF file of its base, whose `config` this is; raises
    `UserError` as `write_gguf` does."""
    if converter:
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            folder = Path(temporary) / name  # by which the converter calls it
            folder.mkdir()
            write_peft(adapter, name, folder)
            plain = {key: value for key, value in config.items() if "quantization" not in key}
            save_config(plain, folder / "config.json")
            convert(converter, ADAPTER, folder, "--base", folder, "--outfile", path)
        return
    import gguf

    check_architecture(config)
    lora, loaded = _adapter(adapter)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora["scale"] * lora["rank"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for key, array in loaded.items():
        layer, matrix = key.rsplit(".", 1)
        weight = np.array(array.T.astype(mx.float32))
        if matrix == "lora_b":
            weight = _side_by_side(f"{layer}.weight", weight, config)
        writer.add_tensor(f"{names.get_name(layer)}.weight.{matrix}", np.ascontiguousarray(weight))
    _finish(writer)


def _adapter(folder: Path) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """The `lora_parameters` of the adapter in `folder`, and its matrices by name."""
    described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    loaded: Any = mx.load(str(folder / WEIGHTS))
    return described["lora_parameters"], loaded


def check_architecture(config: dict[str, Any]) -> None:
    """Raise `UserError` for a model, with this `config`, that only llama.cpp's converter takes to GGUF."""
    scaling, known = config.get("rope_scaling") or {}, config["model_type"] in ("llama", "mistral")
    rope = scaling.get("rope_type") or scaling.get("type") or "default"
    if not known or rope not in ("default", "llama3"):
        what = f"com RoPE «{rope}»" if known else f"do tipo «{config['model_type']}»"
        raise UserError(
            f"não sei escrever em GGUF um modelo {what}: exporte-o com --converter e a pasta do llama.cpp "
            "(de github.com/ggml-org/llama.cpp), ou use «farense-qlora serve»"
        )


def _side_by_side(layer: str, weight: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """The `weight` of `layer` (outputs, ...) as llama.cpp has it: of queries and keys the outputs that rotate
    together lie side by side, and not half a head apart."""
    heads = config["num_attention_heads"]
    rotating = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}
    part = layer.split(".")[-2]
    return permute_weights(weight, rotating[part]) if part in rotating else weight


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _pack(plain: Path, kind: str, path: Path) -> None:
    """Write the GGUF file `plain` to `path` with its matrices as llama.cpp packs the `kind`."""
    import llama_cpp

    said = []

    @llama_cpp.llama_log_callback
    def listen(_: int, text: bytes, __: object) -> None:
        said.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(listen, None)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
    failed = llama_cpp.llama_model_quantize(os.fsencode(plain), os.fsencode(path), settings)
    llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), None)  # as it was
    if failed:
        raise UserError(f"o llama.cpp não conseguiu escrever {path.name} em {kind}: {said[-1].strip()}")
