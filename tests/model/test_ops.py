"""The fast operations equal mlx's own, forwards and backwards."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models.activations import swiglu as mlx_lm_swiglu

from farense_qlora.model import ops


@pytest.mark.parametrize("kept", [False, True], ids=["dequantized each time", "kept dequantized"])
def test_sgemm_linear_equals_quantized_matmul_in_value_and_gradient(kept: bool) -> None:
    mx.random.seed(0)
    layer = nn.QuantizedLinear(128, 96, bias=True, group_size=64, bits=4)
    x, weight = mx.random.normal((2, 7, 128)), mx.random.normal((2, 7, 96))
    plain, slope = mx.value_and_grad(lambda x: (layer(x) * weight).sum())(x)

    layer.__class__ = ops.SgemmQuantizedLinear
    if kept:
        layer._dense = ops.dequantized(layer)
    fast, fast_slope = mx.value_and_grad(lambda x: (layer(x) * weight).sum())(x)

    assert fast.item() == pytest.approx(plain.item(), rel=1e-5)
    assert mx.allclose(fast_slope, slope, atol=1e-5)
    assert "_dense" not in dict(layer.parameters())


def test_swiglu_equals_mlx_lm_in_value_and_gradient() -> None:
    gate, x = mx.random.normal((5, 33)) * 4, mx.random.normal((5, 33))
    ours = mx.value_and_grad(lambda g, x: (ops.swiglu(g, x) ** 2).sum(), argnums=(0, 1))(gate, x)
    theirs = mx.value_and_grad(lambda g, x: (mlx_lm_swiglu(g, x) ** 2).sum(), argnums=(0, 1))(gate, x)
    assert ours[0].item() == pytest.approx(theirs[0].item(), rel=1e-5)
    assert all(mx.allclose(a, b, atol=1e-4) for a, b in zip(ours[1], theirs[1], strict=True))


def test_swiglu_stays_finite_far_from_zero() -> None:
    gate = mx.array([-200.0, -90.0, 0.0, 90.0, 200.0])
    value, slope = mx.value_and_grad(lambda g: ops.swiglu(g, mx.ones(5)).sum())(gate)
    assert mx.isfinite(value).item() and mx.isfinite(slope).all().item()
