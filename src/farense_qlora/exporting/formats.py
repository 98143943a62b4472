"""Write a trained adapter as others want it: for PEFT, fused into the weights of its base, or as GGUF."""

import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.mla import MultiLinear, QuantizedMultiLinear
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import dequantize_model, load_model, quantize_model, save_config, save_model

from ..data.chat import prompt_tokens
from ..data.template import chat_template
from ..errors import UserError
from ..model.adapters import save_arrays
from ..model.base import GROUP_SIZE

GGUF = "model.gguf"
# How a tokenizer.json over bytes cuts text in pieces, step by step, and what llama.cpp calls the same.
GPT_2 = "as GPT-2 does"  # built into the ByteLevel step
PRE_TOKENIZERS = {
    (GPT_2,): "gpt-2",
    (r"\p{N}", GPT_2): "smollm",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): "llama-bpe",
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ): "qwen2",
}
# Numbers in groups of a few digits, words, single signs, white space: llama.cpp does not have this, but can
# be told of such groups; see `_vocabulary`.
DIGIT_GROUPS = re.compile(r"\[ -\]\?\\p\{N\}\{1,(\d)\}" + re.escape(r"| ?\p{L}+| ?[^\s\p{L}\p{N}]|\s+"))


def write_peft(adapter: Path, base: str, folder: Path) -> None:
    """The adapter for PEFT: its matrices transposed, under PEFT's names, and `lora_alpha = scale * rank`.

    Raises `UserError` for one on experts.
    """
    described = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    lora = described["lora_parameters"]
    loaded: Any = mx.load(str(adapter / "adapters.safetensors"))
    if several := sorted({name.split(".")[-2] for name, array in loaded.items() if array.ndim > 2}):
        raise UserError(
            f"o PEFT não lê adaptadores em especialistas ({', '.join(several)}): exporte como «mlx» ou «fused», ou "
            "treine sem eles em target_modules"
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
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def fuse(base: Path, adapter: Path | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model in the folder `base`, not quantized and in float32, with `adapter` in its weights; lazy.

    Returns it with its config.
    """
    model, config = load_model(base, lazy=True)
    model.set_dtype(mx.float32)  # what is added to a weight in 16 bits may be lost
    if adapter:
        load_adapters(model, str(adapter))
        fused = [
            (name, layer.fuse(dequantize=True)) for name, layer in model.named_modules() if "lora_a" in layer
        ]
        model.update_modules(tree_unflatten(fused))
    model = dequantize_model(model)
    for _, layer in model.named_modules():
        if isinstance(layer, QuantizedMultiLinear):  # DeepSeek's, which mlx-lm leaves as they are
            layer.weight = mx.dequantize(
                layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits, layer.mode
            )
            del layer.scales, layer.biases
            layer.__class__ = MultiLinear
    # Transformers takes a «mistral» with layer types, even all alike, for another architecture.
    plain = set(config.get("layer_types") or ()) <= {"full_attention"}
    for key in ("quantization", "quantization_config", *(("layer_types",) if plain else ())):
        config.pop(key, None)
    return model, config


def write_fused(
    base: Path,
    adapter: Path | None,
    tokenizer: TokenizerWrapper,
    folder: Path,
    bits: int = 16,
    dtype: mx.Dtype = mx.float16,
) -> None:
    """A complete model: `adapter` in the weights of `base`, quantized again when `bits` is 4.

    In float16: bfloat16 has three bits fewer for the same size, and an update is small beside its weight.
    What quantization leaves as floats stays as the base has it.
    """
    quantization = json.loads((base / "config.json").read_text(encoding="utf-8")).get("quantization", {})
    model, config = fuse(base, adapter)
    if bits == 4:
        size, mode = quantization.get("group_size", GROUP_SIZE), quantization.get("mode", "affine")
        with redirect_stdout(StringIO()):
            model, config = quantize_model(model, config, size, 4, mode)
        dtype = getattr(mx, config.get("torch_dtype") or config.get("dtype") or "float16")
    model.set_dtype(dtype)
    config["torch_dtype"] = str(dtype).removeprefix("mlx.core.")
    save_model(folder, model, donate_model=True)  # a file of weights at a time in memory
    save_config(config, folder / "config.json")
    tokenizer.save_pretrained(str(folder))
    if isinstance(tokenizer.chat_template, str | None):  # with the date that it was trained with
        (folder / "chat_template.jinja").write_text(chat_template(tokenizer), encoding="utf-8")


def write_gguf(
    base: Path, adapter: Path | None, tokenizer: TokenizerWrapper, name: str, kind: str, path: Path
) -> None:
    """The fused model as one file for llama.cpp, its matrices as `kind` (f16, bf16 or q8_0).

    Raises `UserError` for what llama.cpp would read in another way: another architecture or tokenizer.
    """
    import gguf

    model, config = fuse(base, adapter)
    scaling = config.get("rope_scaling") or {}
    rope = scaling.get("rope_type") or scaling.get("type") or "default"
    known = config["model_type"] in ("llama", "mistral")
    if not known or rope not in ("default", "llama3"):
        what = f"com RoPE «{rope}»" if known else f"do tipo «{config['model_type']}»"
        raise UserError(
            f"não sei escrever em GGUF um modelo {what}: exporte como «fused» e converta com as ferramentas "
            "do llama.cpp, ou use «farense-qlora serve»"
        )
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
        **_vocabulary(tokenizer, config["vocab_size"]),
    }
    writer = gguf.GGUFWriter(path, "llama", use_temp_file=True)
    for fact, value in facts.items():
        getattr(writer, f"add_{fact}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    weights = dict(tree_flatten(model.parameters()))
    if rope == "llama3":
        theta, frequencies = facts["rope_freq_base"], model.layers[0].self_attn.rope._freqs
        factors = np.array(frequencies) / theta ** (np.arange(0, size, 2) / size)
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    del model
    for layer in list(weights):
        weight = np.array(weights.pop(layer))  # computed here, and nowhere kept
        for part, count in (("q_proj", heads), ("k_proj", groups)):
            if f".{part}." in layer:  # the halves that rotate together lie side by side
                weight = weight.reshape(count, 2, size // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        number = gguf.GGMLQuantizationType[kind.upper() if weight.ndim > 1 else "F32"]
        stored = gguf.quants.quantize(np.ascontiguousarray(weight), number)
        writer.add_tensor(names.get_name(layer, try_suffixes=(".weight", ".bias")), stored, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary(tokenizer: TokenizerWrapper, size: int) -> dict[str, Any]:
    """The tokenizer as the `add_` methods of a GGUF writer take it, by their names.

    Raises `UserError` for one that llama.cpp does not have.
    """
    from gguf import TokenType

    described = json.loads(tokenizer._tokenizer.backend_tokenizer.to_str())
    model, (pre, digits) = described["model"], _pre_tokenizer(described)
    sentencepiece = pre == "default"
    if model["type"] != "BPE" or pre is None:
        kind = type(tokenizer._tokenizer).__name__
        raise UserError(
            f"não sei escrever em GGUF o tokenizer deste modelo ({kind}): só BPE sobre bytes, com um "
            "pré-tokenizer que o llama.cpp tenha, ou SentencePiece; exporte como «fused» e converta com as "
            "ferramentas dele"
        )
    tokens, types = [f"[PAD{i}]" for i in range(size)], [TokenType.UNUSED] * size
    for text, token in model["vocab"].items():
        tokens[token], types[token] = text, TokenType.NORMAL
        # llama.cpp looks for tokens of this type before it cuts the text in pieces: thus a number is cut from
        # its start on, as the tokenizer's own expression does. Whether it does so in the questions at hand is
        # what the check of an export finds out.
        if digits and re.fullmatch(f"[Ġ-][0-9]{{{digits}}}", text):
            tokens[token], types[token] = text.replace("Ġ", " "), TokenType.USER_DEFINED
        if sentencepiece and re.fullmatch("<0x[0-9A-F]{2}>", text):
            types[token] = TokenType.BYTE
    for added in described["added_tokens"]:
        if added["id"] >= size:  # of pictures, in a model without eyes
            continue
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    facts: dict[str, Any] = {
        "tokenizer_model": "llama" if sentencepiece else "gpt2",
        "tokenizer_pre": pre,
        "token_list": tokens,
        "token_types": [int(kind) for kind in types],
        "chat_template": chat_template(tokenizer),
    }
    if sentencepiece:  # llama.cpp joins the pair whose token has the highest score
        order = {text: -float(rank) for rank, text in reversed([*enumerate(map("".join, pairs))])}
        facts["token_scores"] = [order.get(text, -float(len(pairs))) for text in tokens]
        facts["add_space_prefix"] = _prefixed(described)
    else:
        facts["token_merges"] = [" ".join(pair) for pair in pairs]
    for name in ("bos", "eos", "unk", "pad"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is not None and token < size:  # Transformers adds one that a family usually has
            facts[f"{name}_token_id"] = token
    # The template writes it; whoever has only the text of a question must add it.
    question = prompt_tokens([{"role": "user", "content": "?"}], tokenizer)
    facts["add_bos_token"] = question[0] == tokenizer.bos_token_id
    return facts


def _pre_tokenizer(described: dict[str, Any]) -> tuple[str | None, int]:
    """What llama.cpp calls the way in which a tokenizer.json cuts text in pieces, None if it has no such way,
    and in groups of how many digits it has to be told to cut numbers (0: it knows)."""
    cuts: list[str] = []
    steps = _steps(described["pre_tokenizer"], "pretokenizers")
    if described["model"].get("byte_fallback") and all(step["type"] != "Split" for step in steps):
        return "default", 0
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": expression}}:
                cuts.append(expression)
            case {"type": "Digits", "individual_digits": True}:
                cuts.append(r"\p{N}")
            case {"type": "ByteLevel"}:
                cuts += [GPT_2] if step.get("use_regex", True) else []
            case _:
                return None, 0
    if not steps or steps[-1]["type"] != "ByteLevel":
        return None, 0
    if len(cuts) == 1 and (groups := DIGIT_GROUPS.fullmatch(cuts[0])):
        return "gpt-2", int(groups[1])
    return PRE_TOKENIZERS.get(tuple(cuts)), 0


def _steps(part: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """The steps that a part of a tokenizer.json has, whether none, one or several under `name`."""
    whole: list[dict[str, Any]] = (part or {}).get(name, [part] if part else [])
    return whole


def _prefixed(described: dict[str, Any]) -> bool:
    """Whether a SentencePiece tokenizer puts a space before the text that follows a special token: all but
    those do that only put one at the very start, where a conversation has its first special token."""
    normal = [step["type"] for step in _steps(described["normalizer"], "normalizers")]
    schemes = [step.get("prepend_scheme") for step in _steps(described["pre_tokenizer"], "pretokenizers")]
    return "Prepend" in normal or "always" in schemes
