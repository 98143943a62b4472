"""Packed equals unpacked, in loss and gradients, for each family that we name; others are refused."""

import importlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from farense_qlora.config import Config
from farense_qlora.data.batches import Batch, collate
from farense_qlora.data.tokens import Example
from farense_qlora.errors import UserError
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import make_ready
from farense_qlora.model.checkpointing import use_checkpointing
from farense_qlora.model.packed import PackedCache, check_packable
from farense_qlora.training.step import arrays, batch_loss

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "vocab_size": 300,
}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
# Its last two layers use the keys and values of earlier ones, which their blocks hand on.
GEMMA_4 = {
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 5,
    "global_head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 300,
    "tie_word_embeddings": True,
}
FAMILIES = {
    "mistral": ("llama", {}),
    "mistral, sliding window": ("llama", SLIDING),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"num_hidden_layers": 2}),
    "gemma3": ("gemma3_text", {"sliding_window": 5, "sliding_window_pattern": 2}),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "phi3": ("phi3", {}),
    "gemma4": ("gemma4_text", GEMMA_4),
}


def tiny(family: str, **shape: object) -> nn.Module:
    """A tiny model of mlx-lm's module `family` with an adapter whose B is not zero."""
    mx.random.seed(0)
    module = importlib.import_module(f"mlx_lm.models.{family}")
    defaults = {"model_type": family, "tie_word_embeddings": False, **SHAPE}
    model = module.Model(module.ModelArgs.from_dict({**defaults, **shape}))
    make_ready(model)
    attach(model, Config.of("mini", rank=4))
    for name, array in tree_flatten(model.trainable_parameters()):
        if name.endswith("lora_b"):
            model.load_weights([(name, mx.random.normal(array.shape) * 0.1)], strict=False)
    return model


def rows(*lengths: int) -> list[Example]:
    random = np.random.default_rng(0)
    return [
        Example(random.integers(5, 300, length).astype(np.int32), np.arange(length) >= length // 2)
        for length in lengths
    ]


def measured(model: nn.Module, batches: list[Batch]) -> tuple[float, dict[str, mx.array]]:
    total = sum(batch.supervised for batch in batches)
    loss, grads = 0.0, {}
    for batch in batches:
        part, gradients = nn.value_and_grad(model, batch_loss)(model, *arrays(batch))
        loss += part.item() / total
        for name, array in tree_flatten(gradients):
            grads[name] = grads.get(name, 0) + array / total
    return loss, grads


def agree(one: tuple[float, dict[str, mx.array]], other: tuple[float, dict[str, mx.array]]) -> None:
    assert one[0] == pytest.approx(other[0], abs=2e-5)
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        scale = max(1.0, mx.abs(other[1][name]).max().item())
        assert mx.abs(one[1][name] - other[1][name]).max().item() < 5e-5 * scale, name


@pytest.mark.parametrize(("family", "shape"), FAMILIES.values(), ids=FAMILIES.keys())
def test_packed_equals_unpacked(family: str, shape: dict[str, object]) -> None:
    model = tiny(family, **shape)
    check_packable(model, family)
    a, b, c, d = rows(19, 9, 14, 11)
    agree(
        measured(model, [collate([[a, b], [c, d]], window=40)]),
        measured(model, [collate([[row]]) for row in (a, b, c, d)]),
    )


def test_the_comparison_notices_rows_that_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    a, b = rows(19, 9)
    packed = collate([[a, b]])
    seen = Batch(**{**vars(packed), "segments": np.ones_like(packed.segments)})
    apart = measured(model, [collate([[row]]) for row in (a, b)])
    with pytest.raises(AssertionError):
        agree(measured(model, [seen]), apart)


@pytest.mark.parametrize(("family", "shape"), [("llama", {}), ("gemma4_text", GEMMA_4)])
def test_checkpointing_changes_no_number_of_a_packed_batch(family: str, shape: dict[str, object]) -> None:
    model = tiny(family, **shape)
    batch = collate([rows(19, 9), rows(14, 11)])
    plain = measured(model, [batch])
    use_checkpointing(model)
    agree(measured(model, [batch]), plain)


def test_a_model_whose_rows_see_each_other_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    monkeypatch.setattr(PackedCache, "make_mask", lambda *_, **__: "causal")
    with pytest.raises(UserError, match="veem-se umas às outras: desligue «packing»"):
        check_packable(model, "llama")


def test_rounding_to_16_bits_is_not_taken_for_a_leak() -> None:
    """Random weights are the worst of cases: nothing that a layer adds is small beside what was there."""
    model = tiny("llama", num_hidden_layers=16)
    for dtype in (mx.bfloat16, mx.float16):
        model.set_dtype(dtype)
        check_packable(model, "llama")


def test_state_space_models_are_refused() -> None:
    from mlx_lm.models.mamba import Model, ModelArgs

    shape = {"hidden_size": 32, "intermediate_size": 64, "state_size": 8, "num_hidden_layers": 1}
    more = {"conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4}
    model = Model(ModelArgs.from_dict({"model_type": "mamba", "vocab_size": 50, **shape, **more}))
    with pytest.raises(UserError, match="desligue «packing»"):
        check_packable(model, "mamba")
