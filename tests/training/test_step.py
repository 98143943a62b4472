"""A step is one AdamW step on all matrices at once, the same compiled or not."""

from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from farense_qlora.config import Config
from farense_qlora.data.batches import Batch, collate
from farense_qlora.data.tokens import Example
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.model.checkpointing import use_checkpointing
from farense_qlora.training import step as step_module
from farense_qlora.training.step import Step, arrays, batch_loss

CONFIG = Config.of("mini", rank=4, dropout=0.1, max_grad_norm=0.5, weight_decay=0.1, lora_plus_ratio=4)


def batches(count: int) -> list[Batch]:
    random = np.random.default_rng(0)
    rows = [
        Example(random.integers(5, 300, 17).astype(np.int32), np.arange(17) >= 8) for _ in range(4 * count)
    ]
    return [collate([rows[i : i + 2], rows[i + 2 : i + 4]], 40) for i in range(0, 4 * count, 4)]


def step_for(model: nn.Module, compiled: bool, config: Config = CONFIG) -> Step:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "on_cpu", lambda: not compiled)
        return Step(model, config)


def trained(
    folder: Path, compiled: bool, checkpointing: bool
) -> tuple[list[tuple[float, float]], dict[str, mx.array]]:
    model = load_base(Config(model=str(folder))).model
    attach(model, CONFIG)
    if checkpointing:
        use_checkpointing(model)
    step = step_for(model, compiled)
    mx.random.seed(3)
    if compiled:
        mx.enable_compile()
    said = [step([[batch]], 1e-3)[:2] for batch in batches(6)]
    mx.disable_compile()
    return said, dict(tree_flatten(model.trainable_parameters()))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_update_is_the_same(tiny_model: Path, checkpointing: bool) -> None:
    said, weights = trained(tiny_model, compiled=False, checkpointing=checkpointing)
    same, others = trained(tiny_model, compiled=True, checkpointing=checkpointing)
    assert np.array(same) == pytest.approx(np.array(said), rel=1e-4)
    assert all(mx.allclose(weights[name], others[name], atol=1e-5) for name in weights)


def test_matrices_end_to_end_learn_as_they_do_one_by_one(tiny_model: Path) -> None:
    config = CONFIG.changed(dropout=0, lora_plus_ratio=1)
    whole, single = (load_base(Config(model=str(tiny_model))).model for _ in range(2))
    for model in (whole, single):
        attach(model, config)
    step, optimizer = Step(whole, config), optim.AdamW(1e-3, weight_decay=0.1, bias_correction=True)
    for batch in batches(4):
        step([[batch]], 1e-3)
        grads = nn.value_and_grad(single, batch_loss)(single, *arrays(batch))[1]
        grads = tree_map(lambda grad, count=batch.supervised: grad / count, grads)
        grads, _ = optim.clip_grad_norm(grads, 0.5)
        optimizer.update(single, grads)
    others = dict(tree_flatten(single.trainable_parameters()))
    for name, array in tree_flatten(whole.trainable_parameters()):
        # A hundredth of one update: Adam magnifies the last bits of small gradients, which differ by BLAS.
        assert mx.allclose(array, others[name], atol=1e-5), name


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_that_is_restored_goes_on_as_before(tiny_model: Path, compiled: bool) -> None:
    """Also one that has been compiled: its optimizer is put back in place."""
    model = load_base(Config(model=str(tiny_model))).model
    config = CONFIG.changed(dropout=0)
    attach(model, config)
    first, *others = batches(4)
    if compiled:
        mx.enable_compile()
    try:
        step = step_for(model, compiled, config)
        step([[first]], 1e-3)
        weights, state = tree_flatten(model.trainable_parameters()), tree_map(mx.array, step.state)
        said = [step([[batch]], 1e-3)[:2] for batch in others]
        model.load_weights(weights, strict=False)
        step.restore(state)
        assert [step([[batch]], 1e-3)[:2] for batch in others] == said
    finally:
        mx.disable_compile()


def test_16_bit_gradients_do_not_vanish_in_an_update_of_many_tokens(tiny_model: Path) -> None:
    """Of an answer that is all but known a token's share of the mean is less than float16 holds."""
    model = load_base(Config(model=str(tiny_model), bits=16)).model
    model.lm_head.weight *= 8  # lets it be sure
    config = CONFIG.changed(dropout=0, weight_decay=0)
    attach(model, config)
    step = Step(model, config)
    batch = collate([[Example(np.full(9, 5, np.int32), np.arange(9) >= 1)]])
    assert any(step([[batch]], 1e-3)[0] < 3e-3 for _ in range(60))
    weights, norms = tree_flatten(model.trainable_parameters()), []
    for dtype in (mx.float32, mx.float16):
        model.set_dtype(dtype)
        model.load_weights(weights, strict=False)
        norms.append(step([[batch]] * 300, 1e-9)[1])
    assert norms[1] == pytest.approx(norms[0], rel=0.1)
