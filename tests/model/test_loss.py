"""The head's loss equals the cross-entropy of the model's own logits, and never holds them all."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from model.test_packed import FAMILIES, tiny

from farense_qlora.model import loss as module
from farense_qlora.model.loss import backbone_and_head, token_losses


@pytest.mark.parametrize(("family", "shape"), FAMILIES.values(), ids=FAMILIES.keys())
def test_head_after_backbone_is_the_whole_model(family: str, shape: dict[str, object]) -> None:
    model, inputs = tiny(family, **shape), mx.arange(20).reshape(2, 10)
    backbone, head = backbone_and_head(model)
    assert mx.array_equal(head(backbone(inputs, cache=None)), model(inputs))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
@pytest.mark.parametrize("rows", [3, 100])
def test_losses_and_gradient_are_those_of_the_logits_whatever_the_chunk(
    family: str, rows: int, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family).train(training)
    hidden, labels = mx.random.normal((10, 64)), mx.arange(10) * 3
    weights = mx.array([1.0, 0.5, 0, 1, 1, 1, 2, 1, 1, 0])
    all_logits = backbone_and_head(model)[1](hidden)
    labels[4] = all_logits[4].argmax()

    def reference(hidden: mx.array) -> mx.array:
        return (nn.losses.cross_entropy(backbone_and_head(model)[1](hidden), labels) * weights).sum()

    def ours(hidden: mx.array) -> mx.array:
        return (token_losses(model, hidden, labels)[0] * weights).sum()

    expected, grad = mx.value_and_grad(reference)(hidden)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 300 * rows)
    monkeypatch.setattr(module, "ROWS_AT_LEAST", 1)
    got, got_grad = mx.value_and_grad(ours)(hidden)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    assert mx.allclose(got_grad, grad, atol=1e-5)
    losses, behind = token_losses(model, hidden, labels)
    assert mx.allclose(losses, nn.losses.cross_entropy(all_logits, labels), atol=1e-5)
    assert mx.allclose(
        behind, all_logits.max(axis=-1) - all_logits[mx.arange(len(labels)), labels], atol=1e-5
    )
    assert mx.array_equal(behind == 0, all_logits.argmax(axis=-1) == labels) and behind[4].item() == 0


def test_no_gradient_of_the_head_is_computed_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama").eval()
    monkeypatch.setattr(module.mx, "vjp", lambda *_: pytest.fail("the head went backwards"))
    mx.eval(token_losses(model, mx.random.normal((10, 64)), mx.arange(10)))


@pytest.mark.parametrize("training", [True, False])
def test_memory_does_not_grow_with_the_number_of_positions(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", vocab_size=20_000).train(training)
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1_000_000)
    hidden, labels = mx.random.normal((2000, 64)), mx.zeros(2000, mx.int32)
    mx.eval(hidden, model.parameters())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    if training:
        mx.eval(mx.value_and_grad(lambda hidden: token_losses(model, hidden, labels)[0].sum())(hidden))
    else:
        mx.eval(token_losses(model, hidden, labels))
    assert mx.get_peak_memory() - before < 2000 * 20_000 * 4 / 2  # half of all logits
