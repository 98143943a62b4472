"""Computed again in the backward pass, a block gives the same gradient and takes less memory."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from farense_qlora.config import Config
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.model.checkpointing import use_checkpointing
from farense_qlora.model.packed import hidden_states


def adapted(folder: object, dropout: float = 0.0) -> nn.Module:
    """The model in `folder` with an adapter whose matrices B are not zero."""
    model = load_base(Config(model=str(folder))).model
    attach(model, Config.of("mini", rank=4, alpha=8, dropout=dropout))
    for name, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape, key=mx.random.key(len(name)))
    return model.train()


def loss(model: nn.Module) -> mx.array:
    return model(mx.arange(24).reshape(2, 12)).square().mean()


def gradient(model: nn.Module) -> dict[str, mx.array]:
    return dict(tree_flatten(nn.value_and_grad(model, loss)(model)[1]))


def test_the_gradient_is_the_same(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    plain = gradient(model)
    use_checkpointing(model)
    recomputed = gradient(model)
    assert len(plain) == len(recomputed) == 2 * 7 * 2
    assert all(mx.allclose(array, recomputed[name], atol=1e-6) for name, array in plain.items())
    assert model.layers[0].__class__.__name__ == "Checkpointed"


def test_with_dropout_it_is_the_gradient_of_the_mask_that_was_drawn(tiny_model: Path) -> None:
    model = adapted(tiny_model, dropout=0.3)
    use_checkpointing(model)
    start = model.trainable_parameters()
    along = tree_map(lambda array: mx.random.normal(array.shape, key=mx.random.key(array.size)), start)

    def loss_at(shift: float) -> float:
        model.update(tree_map(lambda array, direction: array + shift * direction, start, along))
        mx.random.seed(5)
        return float(loss(model))

    mx.random.seed(5)
    grads = tree_unflatten(list(gradient(model).items()))
    foretold = sum(float(array.sum()) for _, array in tree_flatten(tree_map(mx.multiply, grads, along)))
    assert foretold == pytest.approx((loss_at(1e-3) - loss_at(-1e-3)) / 2e-3, rel=0.02)


def peak(checkpointing: bool) -> int:
    """The bytes that a gradient of the miniature takes at most."""
    model = adapted("mini")
    if checkpointing:
        use_checkpointing(model)

    def of_states(model: nn.Module) -> mx.array:
        return hidden_states(model, mx.arange(128).reshape(2, 64), None).square().mean()

    mx.eval(model.parameters())
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(nn.value_and_grad(model, of_states)(model))
    return mx.get_peak_memory() - before


def test_what_is_spared_is_not_kept() -> None:
    """In a process of its own, where MLX looks as widely for work as the miniature asks it to: it would put
    the adapter's gradients off to the end, with all that they are made from."""
    code = "import conftest\nfrom model.test_checkpointing import peak\nprint(peak(False), peak(True))"
    tests = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=tests, capture_output=True, text=True, check=True)
    plain, checkpointed = map(int, done.stdout.split())
    assert checkpointed < 0.85 * plain, (plain, checkpointed)
