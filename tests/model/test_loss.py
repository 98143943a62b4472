"""The head's loss equals the cross-entropy of the model's own logits, and never holds them all."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from model.test_packed import FAMILIES, tiny

from farense_qlora.model import loss as module
from farense_qlora.model.loss import backbone, head, head_loss


@pytest.mark.parametrize(("family", "shape"), FAMILIES.values(), ids=FAMILIES.keys())
def test_head_after_backbone_is_the_whole_model(family: str, shape: dict[str, object]) -> None:
    model, inputs = tiny(family, **shape), mx.arange(20).reshape(2, 10)
    assert mx.array_equal(head(model)(backbone(model)(inputs, cache=None)), model(inputs))


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
@pytest.mark.parametrize("rows", [3, 100])
def test_loss_and_gradient_are_those_of_the_logits_whatever_the_chunk(
    family: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family)
    hidden, labels = mx.random.normal((10, 64)), mx.arange(10) * 3
    weights = mx.array([1.0, 0.5, 0, 1, 1, 1, 2, 1, 1, 0])

    def reference(hidden: mx.array) -> mx.array:
        return (nn.losses.cross_entropy(head(model)(hidden), labels) * weights).sum()

    expected, slope = mx.value_and_grad(reference)(hidden)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 300 * rows)
    monkeypatch.setattr(module, "ROWS_AT_LEAST", 1)
    got, got_slope = mx.value_and_grad(head_loss(model))(hidden, labels, weights)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert mx.allclose(got_slope, slope, atol=1e-5)


def test_memory_does_not_grow_with_the_number_of_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", vocab_size=20_000)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1_000_000)
    hidden = mx.random.normal((2000, 64))
    mx.eval(hidden, model.parameters())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(mx.value_and_grad(head_loss(model))(hidden, mx.zeros(2000, mx.int32), mx.ones(2000)))
    all_logits = 2000 * 20_000 * 4
    assert mx.get_peak_memory() - before < all_logits / 2
