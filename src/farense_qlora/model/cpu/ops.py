"""The operations that a training step spends its time in, in the form that is fastest on a CPU.

There `mx.quantized_matmul` does not use BLAS: from a few rows on it is quicker to dequantize the weight and
multiply in float32. Every operation here equals mlx's own to rounding.
"""

import math
import os
import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

from ..machine import on_cpu

# Rows from which dequantizing and sgemm beat quantized_matmul: for a million weights, on two cores, 2 ms to
# 1.2 ms a row where a byte holds whole weights, and 9 to 20 ms to 1 ms a row in the other formats.
DEQUANTIZE_FROM_ROWS, DEQUANTIZE_ODD_FROM_ROWS = 3, 16
# A model of up to this many weights keeps them dequantized: 256 MB for half of the step.
KEEP_DENSE_BELOW = 64_000_000
# Weights that a larger model dequantizes at a time.
BLOCK = 8_000_000


def use_cpu_operations(model: nn.Module) -> None:
    """Let `model` compute on the CPU through sgemm, and its SwiGLU through a quicker exponential.

    Its quantized layers take other classes, and the modules of mlx-lm that they come from another `swiglu`.
    To be called before the process first evaluates anything: MLX then fixes how widely it looks for work.
    """
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
            layer._dense = _dequantized(layer)
    # Wide keeps two streams at work; narrow dequantizes a weight only when its turn has come.
    os.environ["MLX_BFS_MAX_WIDTH"] = "2000" if keeps_dense(model) else "1"


def keeps_dense(model: nn.Module) -> bool:
    """Whether no layer of `model` has to dequantize its weight each time."""
    return all("_dense" in layer for layer in model.modules() if isinstance(layer, SgemmQuantizedLinear))


class SgemmQuantizedLinear(nn.QuantizedLinear):
    """A quantized linear layer for the CPU: dequantizes and calls sgemm, and again in the backward pass."""

    def __call__(self, x: mx.array) -> mx.array:
        """`x` (..., inputs) through the layer: (..., outputs)."""
        if not _worth_dequantizing(self, x):
            return super().__call__(x)
        y = _frozen_matmul(self, x)
        return y + self.bias if "bias" in self else y


class SgemmQuantizedEmbedding(nn.QuantizedEmbedding):
    """A quantized embedding for the CPU, whose use as the head goes through sgemm like a linear layer's."""

    def as_linear(self, x: mx.array) -> mx.array:
        """The logits (..., V) of hidden states `x` (..., D)."""
        return _frozen_matmul(self, x) if _worth_dequantizing(self, x) else super().as_linear(x)


SGEMM = {nn.QuantizedLinear: SgemmQuantizedLinear, nn.QuantizedEmbedding: SgemmQuantizedEmbedding}


def _worth_dequantizing(layer: Any, x: mx.array) -> bool:
    even = layer.mode == "affine" and layer.bits in (2, 4, 8)
    return x.size // x.shape[-1] >= (DEQUANTIZE_FROM_ROWS if even else DEQUANTIZE_ODD_FROM_ROWS)


def _dequantized(layer: Any, rows: slice = slice(None), after: mx.array | None = None) -> mx.array:
    """The weight of a quantized layer in floats (outputs, inputs), or `rows` of it; made once `after` is."""
    weight, biases = layer.weight[rows], layer.get("biases")
    if after is not None:
        weight = mx.depends(weight, after)
    biases = None if biases is None else biases[rows]
    return mx.dequantize(weight, layer.scales[rows], biases, layer.group_size, layer.bits, layer.mode)


def _frozen_matmul(layer: Any, x: mx.array) -> mx.array:
    """`x @ weight.T` whose backward pass makes the weight anew in place of keeping it.

    The weight is made a block of rows at a time, each once the one before has been used: MLX's dequantization
    takes twice the size of what it makes, and would run ahead.
    """
    dense = layer.get("_dense")
    size = max(1, BLOCK // x.shape[-1])
    blocks = [slice(start, start + size) for start in range(0, layer.weight.shape[0], size)]

    def forward(x: mx.array) -> mx.array:
        if dense is not None:
            return x @ dense.T
        products: list[mx.array] = []
        for rows in blocks:
            after = products[-1] if products else x
            products.append(x @ _dequantized(layer, rows, after).T)
        return mx.concatenate(products, axis=-1) if len(products) > 1 else products[0]

    multiply: Any = mx.custom_function(forward)

    @multiply.vjp
    def _backward(x: mx.array, cotangent: mx.array, _: mx.array) -> mx.array:
        if dense is not None:
            return cotangent @ dense
        grad = mx.array(0.0)
        for rows in blocks:
            weight = _dequantized(layer, rows, cotangent if rows is blocks[0] else grad)
            grad = grad + cotangent[..., rows] @ weight
        return grad

    return multiply(x)


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
    """`mx.exp` of an array of any shape; on the CPU `mx.power` computes the same, 2.7 times as fast."""
    return mx.power(math.e, x) if on_cpu() else mx.exp(x)
