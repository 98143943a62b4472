"""The operations a training step spends its time in, in the form that is fastest on this device.

On the CPU `mx.quantized_matmul` does not use BLAS: from a few rows on it is quicker to dequantize the weight
and multiply in float32. Every operation here equals mlx's own to rounding and keeps no dequantized weight.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

# Rows from which dequantizing (1.4 ms a million weights) beats quantized_matmul (0.9 ms a row and million).
DEQUANTIZE_FROM_ROWS = 3
# A model of up to this many weights keeps them dequantized: 256 MB for a fifth of the step.
KEEP_DENSE_BELOW = 64_000_000


class SgemmQuantizedLinear(nn.QuantizedLinear):
    """A quantized linear layer for the CPU: dequantizes and calls sgemm, and again in the backward pass."""

    def __call__(self, x: mx.array) -> mx.array:
        if x.size // x.shape[-1] < DEQUANTIZE_FROM_ROWS:
            return super().__call__(x)
        y = _frozen_matmul(self, x)
        return y + self.bias if "bias" in self else y


class SgemmQuantizedEmbedding(nn.QuantizedEmbedding):
    """A quantized embedding for the CPU, whose use as the head goes through sgemm like a linear layer's."""

    def as_linear(self, x: mx.array) -> mx.array:
        if x.size // x.shape[-1] < DEQUANTIZE_FROM_ROWS:
            return super().as_linear(x)
        return _frozen_matmul(self, x)


def dequantized(layer: nn.Module, after: mx.array | None = None) -> mx.array:
    """The weight of a quantized linear or embedding layer in floats (output, input), made once `after` is."""
    weight = layer.weight if after is None else mx.depends(layer.weight, after)
    return mx.dequantize(weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, layer.mode)


@contextmanager
def dequantized_once(model: nn.Module, after: mx.array) -> Iterator[None]:
    """Let the head of `model` multiply with one dequantized weight, made once `after` is."""
    layer = model.get("lm_head", model.model.embed_tokens)
    once = isinstance(layer, SgemmQuantizedLinear | SgemmQuantizedEmbedding) and "_dense" not in layer
    if once:
        layer._dense = dequantized(layer, after)
    try:
        yield
    finally:
        if once:
            del layer["_dense"]


def keeps_dense(model: nn.Module) -> bool:
    """Whether no layer of `model` has to dequantize its weight each time."""
    return all("_dense" in layer for layer in model.modules() if isinstance(layer, SgemmQuantizedLinear))


def _frozen_matmul(layer: nn.Module, x: mx.array) -> mx.array:
    """`x @ weight.T` whose backward pass makes the weight anew in place of keeping it."""

    def dense(needed_by: mx.array) -> mx.array:
        # Without the dependency all weights could be dequantized first, since nothing else holds them back.
        kept = layer.get("_dense")
        return dequantized(layer, needed_by) if kept is None else kept

    multiply: Any = mx.custom_function(lambda x: x @ dense(x).T)
    multiply.vjp(lambda x, cotangent, _: cotangent @ dense(cotangent))
    return multiply(x)


SGEMM = {nn.QuantizedLinear: SgemmQuantizedLinear, nn.QuantizedEmbedding: SgemmQuantizedEmbedding}


def use_cpu_operations(model: nn.Module) -> None:
    """Let `model` compute on the CPU through sgemm, and its SwiGLU through a quicker exponential."""
    for module in model.modules():
        if type(module) in SGEMM:
            module.__class__ = SGEMM[type(module)]  # same parameters, another way to multiply
        namespace: Any = sys.modules[type(module).__module__]
        if getattr(namespace, "swiglu", None) is activations.swiglu:
            namespace.swiglu = swiglu
    # An embedding multiplies only where it is the head as well.
    tied = not any(name.endswith("lm_head") for name, _ in model.named_modules())
    multiplies = (SgemmQuantizedLinear, SgemmQuantizedEmbedding) if tied else (SgemmQuantizedLinear,)
    layers: list[Any] = [module for module in model.modules() if isinstance(module, multiplies)]
    if sum(layer.weight.size * 32 // layer.bits for layer in layers) <= KEEP_DENSE_BELOW:
        for layer in layers:
            layer._dense = dequantized(layer)


@mx.custom_function
def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`silu(gate) * x` (Shazeer, 2020), keeping only its inputs for the backward pass."""
    return gate * _sigmoid(gate) * x


@swiglu.vjp
def _swiglu_vjp(inputs, cotangent, _):  # type: ignore[no-untyped-def]
    gate, x = inputs
    sigmoid = _sigmoid(gate)
    silu = gate * sigmoid
    return cotangent * x * (sigmoid + silu - silu * sigmoid), cotangent * silu


def _sigmoid(x: mx.array) -> mx.array:
    return 1 / (1 + exp(-x))


def exp(x: mx.array) -> mx.array:
    """`mx.exp`; on the CPU `mx.power` computes the same, 2.7 times as fast."""
    return mx.power(math.e, x) if mx.default_device().type == mx.DeviceType.cpu else mx.exp(x)
