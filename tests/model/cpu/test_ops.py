"""The fast operations equal mlx's own, forwards and backwards."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.activations import swiglu as mlx_lm_swiglu

from farense_qlora.model.cpu import ops

MODES = [(64, 4, "affine"), (64, 8, "affine"), (64, 6, "affine"), (64, 3, "affine"), (32, 4, "mxfp4")]
WAYS = ["kept dequantized", "dequantized each time", "dequantized in blocks"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("group_size", "bits", "mode"), MODES)
def test_sgemm_equals_quantized_matmul_in_value_and_gradient(
    group_size: int, bits: int, mode: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mx.random.seed(0)
    monkeypatch.setattr(ops, "KEEP_DENSE_BELOW", 10**6 if way == WAYS[0] else 0)
    monkeypatch.setattr(ops, "BLOCK", 128 * 40 if way == WAYS[2] else 10**6)
    x, weight = mx.random.normal((2, 9, 128)), mx.random.normal((2, 9, 96))
    linear = nn.QuantizedLinear(128, 96, True, group_size, bits, mode)
    embedding = nn.QuantizedEmbedding(96, 128, group_size, bits, mode)
    for layer, multiply in ((linear, linear.__call__), (embedding, embedding.as_linear)):
        plain, grad = mx.value_and_grad(lambda x: (multiply(x) * weight).sum())(x)  # noqa: B023
        ops.use_cpu_operations(layer)
        again = layer if layer is linear else layer.as_linear
        fast, fast_grad = mx.value_and_grad(lambda x: (again(x) * weight).sum())(x)  # noqa: B023
        assert type(layer) in ops.SGEMM.values() and ("_dense" in layer) == (way == WAYS[0])
        assert fast.item() == pytest.approx(plain.item(), rel=1e-4)
        assert mx.allclose(fast_grad, grad, atol=1e-4)
        assert "_dense" not in dict(layer.parameters())


def test_swiglu_equals_mlx_lm_in_value_and_gradient() -> None:
    gate, x = mx.random.normal((5, 33)) * 4, mx.random.normal((5, 33))
    ours = mx.value_and_grad(lambda g, x: (ops.swiglu(g, x) ** 2).sum(), argnums=(0, 1))(gate, x)
    theirs = mx.value_and_grad(lambda g, x: (mlx_lm_swiglu(g, x) ** 2).sum(), argnums=(0, 1))(gate, x)
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-5)
    assert all(mx.allclose(a, b, atol=1e-4) for a, b in zip(ours[1], theirs[1], strict=True))


def test_swiglu_stays_finite_far_from_zero() -> None:
    gate = mx.array([-200.0, -90.0, 0.0, 90.0, 200.0])
    value, grad = mx.value_and_grad(lambda g: ops.swiglu(g, mx.ones(5)).sum())(gate)
    assert mx.isfinite(value).item() and mx.isfinite(grad).all().item()
