"""Adapters go where the config says, in whatever layers those names are, and mlx-lm loads them there."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import _get_classes
from model.families import CONVOLUTIONS, config_of
from tiny import SHAPE

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.exporting.formats import write_peft
from farense_qlora.model.adapters import _description, attach, lora_layers, put_layers, save_adapter, take_off

TOKENS = mx.array([[1, 40, 50, 60, 70]])
CONVOLUTIONS_FIRST: dict[str, Any] = {
    **SHAPE,
    "model_type": "lfm2",
    "vocab_size": 128,
    "num_hidden_layers": 4,
    "norm_eps": 1e-5,
    **CONVOLUTIONS,
    "full_attn_idxs": [1, 3],
}
DENSE_FIRST: dict[str, Any] = {
    **SHAPE,
    "model_type": "deepseek",
    "vocab_size": 128,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "scoring_func": "softmax",
    "norm_topk_prob": False,
    "attention_bias": False,
    "rope_scaling": None,
}


def built(config: dict[str, Any]) -> nn.Module:
    cls, settings = _get_classes(config)
    mx.random.seed(0)
    model = cls(settings.from_dict(config))
    model.freeze()
    return model


def adapted(model: nn.Module) -> set[str]:
    """The layers that have an adapter, by their number and name."""
    paths = {name.rpartition(".")[0] for name, _ in tree_flatten(model.trainable_parameters())}
    return {path.removeprefix("model.layers.") for path in paths}


@pytest.mark.parametrize(
    "family, names, layers, expected",
    [
        (
            CONVOLUTIONS_FIRST,
            ("q_proj", "v_proj"),
            -1,
            {f"{n}.self_attn.{p}_proj" for n in (1, 3) for p in "qv"},
        ),
        (CONVOLUTIONS_FIRST, ("q_proj",), 1, {"3.self_attn.q_proj"}),
        (CONVOLUTIONS_FIRST, ("in_proj",), -1, {"0.conv.in_proj", "2.conv.in_proj"}),
        (
            DENSE_FIRST,
            ("down_proj",),
            -1,
            {"0.mlp.down_proj"}
            | {f"{n}.mlp.{part}.down_proj" for n in (1, 2) for part in ("switch_mlp", "shared_experts")},
        ),
        (DENSE_FIRST, ("down_proj",), 1, {"2.mlp.switch_mlp.down_proj", "2.mlp.shared_experts.down_proj"}),
    ],
)
def test_a_name_is_looked_for_in_every_layer_that_gets_an_adapter(
    family: dict[str, Any], names: tuple[str, ...], layers: int, expected: set[str], tmp_path: Path
) -> None:
    config = Config.of("mini", target_modules=names, num_layers=layers)
    model = built(family)
    attach(model, config)
    assert adapted(model) == expected
    trained = {name: array + 0.1 for name, array in tree_flatten(model.trainable_parameters())}
    model.load_weights(list(trained.items()), strict=False)
    save_adapter(model, config, "x", tmp_path)
    theirs = built(family)
    load_adapters(theirs, str(tmp_path))
    model.eval(), theirs.eval()
    assert mx.allclose(model(TOKENS), theirs(TOKENS), atol=1e-5)


ATTENTION = {f"{n}.self_attn.{p}_proj" for n in range(2) for p in "qkvo"}
SHARED = {f"{n}.mlp.shared_expert.{p}_proj" for n in range(2) for p in ("gate", "up", "down")}


@pytest.mark.parametrize(
    "family, expected",
    [
        ("Mixtral", ATTENTION),
        ("Qwen 2, MoE", ATTENTION | SHARED),
        ("Qwen 3, MoE", ATTENTION),
        ("Granite 3, MoE", ATTENTION),
        ("GPT-OSS", ATTENTION),
    ],
)
def test_experts_and_what_chooses_among_them_get_an_adapter_only_when_asked(
    family: str, expected: set[str], tmp_path: Path
) -> None:
    model = built(config_of(family, 128))
    attach(model, Config.of("mini"))
    assert adapted(model) == expected
    described = _description(model, Config.of("mini"))
    assert described == _description(built(config_of(family, 128)), Config.of("mini"))


def test_experts_that_are_asked_for_learn_but_not_for_peft(tmp_path: Path) -> None:
    config = Config.of("mini", target_modules=("q_proj", "gate_proj", "gate"))
    model = built(config_of("Qwen 3, MoE", 128))
    attach(model, config)
    each = ("mlp.gate", "mlp.switch_mlp.gate_proj", "self_attn.q_proj")
    assert adapted(model) == {f"{n}.{name}" for n in range(2) for name in each}
    save_adapter(model, config, "x", tmp_path)
    with pytest.raises(UserError, match=r"o PEFT não lê adaptadores em especialistas \(gate_proj\)"):
        write_peft(tmp_path, "x", tmp_path)


@pytest.mark.parametrize(
    "names", [("q_proj",), ("q_proj", "out_proj"), ("operator_norm",), ("conv",), ("lm_head",)]
)
def test_a_name_that_no_adapted_layer_has_is_refused_with_those_that_are(names: tuple[str, ...]) -> None:
    last_convolution = {**CONVOLUTIONS_FIRST, "full_attn_idxs": [1]}
    with pytest.raises(UserError, match=rf"não há {names[0]} \(há: .*in_proj.*w1"):
        attach(built(last_convolution), Config.of("mini", target_modules=names, num_layers=1))


def test_nothing_to_train_is_never_trained_silently() -> None:
    model = built({**SHAPE, "vocab_size": 128})
    model.layers[-1].self_attn = nn.Identity()
    model.layers[-1].mlp = nn.Identity()
    model.layers[0].self_attn = model.layers[0].mlp = nn.Identity()
    with pytest.raises(UserError, match="não tem parâmetros"):
        attach(model, Config.of("mini"))


def test_adapters_change_places_on_one_model(tmp_path: Path) -> None:
    """Of several ranks, on other layers, and on experts: none leaves anything behind."""
    every, some = Config(rank=4), Config(rank=2, target_modules=("q_proj", "down_proj"), num_layers=1)
    alone = []
    for name, config in (("um", every), ("outro", some)):
        model = built(DENSE_FIRST)
        attach(model, config)
        model.load_weights(
            [(n, mx.random.normal(a.shape)) for n, a in tree_flatten(model.trainable_parameters())],
            strict=False,
        )
        (tmp_path / name).mkdir()
        save_adapter(model, config, "base", tmp_path / name)
        alone.append(model(TOKENS))
    model = built(DENSE_FIRST)
    bare, layers = model(TOKENS), [lora_layers(model, tmp_path / name) for name in ("um", "outro")]
    assert mx.array_equal(model(TOKENS), bare)
    for _ in range(2):
        for own, expected in zip(layers, alone, strict=True):
            put_layers(model, own)
            assert mx.array_equal(model(TOKENS), expected) and not mx.array_equal(bare, expected)
            assert take_off(model) == own and mx.array_equal(model(TOKENS), bare)
