"""The operations a training step spends its time in, in the form that is fastest on this device.

On the CPU `mx.quantized_matmul` does not use BLAS: from a few rows on it is quicker to dequantize the weight
and multiply in float32. Every operation here equals mlx's own to rounding and keeps no dequantized weight.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import activations

# Rows from which dequantizing (1.4 ms a million weights) beats quantized_matmul (0.9 ms a row and million).
DEQUANTIZE_FROM_ROWS = 3
# Logits held at once by the head, in numbers: 8 million are 32 MB in float32.
LOGITS_AT_ONCE = 8_000_000
# A model of up to this many weights keeps them dequantized: 256 MB for a fifth of the step.
KEEP_DENSE_BELOW = 64_000_000


class SgemmQuantizedLinear(nn.QuantizedLinear):
    """A quantized linear layer for the CPU: dequantizes and calls sgemm, and again in the backward pass."""

    def dense(self) -> mx.array:
        """The weight in floats: (output, input)."""
        kept = self.get("_dense")
        return dequantized(self) if kept is None else kept

    def __call__(self, x: mx.array) -> mx.array:
        if x.size // x.shape[-1] < DEQUANTIZE_FROM_ROWS:
            return super().__call__(x)
        y = _frozen_matmul(self.dense)(x)
        return y + self.bias if "bias" in self else y


def dequantized(layer: nn.Module) -> mx.array:
    """The weight of a quantized linear or embedding layer in floats: (output, input)."""
    return mx.dequantize(
        layer.weight, layer.scales, layer.get("biases"), layer.group_size, layer.bits, layer.mode
    )


def _frozen_matmul(dense: Callable[[], mx.array]) -> Callable[[mx.array], mx.array]:
    """`x @ dense().T` whose backward pass makes the weight anew in place of keeping it."""
    multiply: Any = mx.custom_function(lambda x: x @ dense().T)
    multiply.vjp(lambda x, cotangent, _: cotangent @ dense())
    return multiply


def use_cpu_operations(model: nn.Module) -> None:
    """Let `model` compute on the CPU through sgemm, and its SwiGLU through a quicker exponential."""
    for module in model.modules():
        if type(module) is nn.QuantizedLinear:
            module.__class__ = SgemmQuantizedLinear  # same parameters, another way to multiply
        namespace: Any = sys.modules[type(module).__module__]
        if getattr(namespace, "swiglu", None) is activations.swiglu:
            namespace.swiglu = swiglu
    layers = [module for module in model.modules() if isinstance(module, SgemmQuantizedLinear)]
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


def frozen_head_loss(weight: Callable[[], mx.array]) -> Callable[..., mx.array]:
    """The sum of weighted cross-entropies of a frozen head, without ever holding all logits.

    Returns `loss(hidden, labels, weights)` for hidden (N, D), labels (N,) and weights (N,); the gradient of
    `hidden` is computed chunk by chunk in the forward pass, where the logits are at hand.
    """

    def forward(hidden: mx.array, labels: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
        head = weight()
        rows = max(1, LOGITS_AT_ONCE // head.shape[0])
        losses, gradients = [], []
        for start in range(0, hidden.shape[0], rows):
            part = slice(start, start + rows)
            logits = (hidden[part] @ head.T).astype(mx.float32)
            target = labels[part, None]
            top = logits.max(axis=-1, keepdims=True)
            exps = exp(logits - top)
            total = exps.sum(axis=-1, keepdims=True)
            chosen = mx.take_along_axis(logits, target, axis=-1)
            row_weights = weights[part, None]
            losses.append(((mx.log(total) + top - chosen) * row_weights).sum())
            slope = exps * (row_weights / total)
            slope = mx.put_along_axis(
                slope, target, mx.take_along_axis(slope, target, axis=-1) - row_weights, axis=-1
            )
            gradients.append(slope.astype(hidden.dtype) @ head)
        return sum(losses[1:], losses[0]), mx.concatenate(gradients)

    fused: Any = mx.custom_function(forward)

    @fused.vjp
    def _backward(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
        _, labels, weights = primals
        return cotangents[0] * outputs[1], mx.zeros_like(labels), mx.zeros_like(weights)

    return lambda hidden, labels, weights: fused(hidden, labels, weights)[0]
