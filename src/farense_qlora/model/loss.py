"""The frozen head and its loss, without ever holding all logits: a large vocabulary costs no memory."""

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import UserError
from .cpu.ops import exp

# Logits held at once, in numbers: 2 million are 8 MB in float32, and MLX holds some four copies of them.
LOGITS_AT_ONCE = 2_000_000
ROWS_AT_LEAST = 64  # fewer would not be worth making the head's weight for


def backbone(model: nn.Module) -> nn.Module:
    """The part of `model` that gives hidden states (after the last norm), before the head.

    Raises `UserError` when `model` has no such part.
    """
    return _language_model(model).model


def head(model: nn.Module) -> Callable[[mx.array], mx.array]:
    """What `model` does after its backbone, in mlx-lm's own code: hidden (..., D) to logits (..., V), with
    whatever scale, bias or cap the family has. Raises `UserError` as `backbone` does."""
    bare = copy.copy(_language_model(model))  # shallow: shares every layer
    bare.model = _Through(bare.model)
    return bare


def head_loss(model: nn.Module) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """`loss(hidden, labels, weights)`: the weighted sum of the cross-entropies of the head of `model`.

    For hidden (N, D), labels (N,) and weights (N,). The gradient of `hidden` is computed chunk by chunk in
    the forward pass, where the logits are at hand; the head itself gets none. Raises `UserError` as
    `backbone` does.
    """
    logits_of = head(model)

    def forward(hidden: mx.array, labels: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
        rows = max(ROWS_AT_LEAST, LOGITS_AT_ONCE // logits_of(hidden[:1]).shape[-1])
        losses: list[mx.array] = []
        gradients: list[mx.array] = []
        for start in range(0, hidden.shape[0], rows):
            part = hidden[start : start + rows]
            if gradients:  # one chunk after the other: side by side they would all be held at once
                part = mx.depends(part, [gradients[-1], losses[-1]])
            target, weight = labels[start : start + rows, None], weights[start : start + rows, None]
            logits = logits_of(part).astype(mx.float32)
            chosen = mx.take_along_axis(logits, target, axis=-1)
            top = logits.max(axis=-1, keepdims=True)
            exps = exp(logits - top)
            total = exps.sum(axis=-1, keepdims=True)
            losses.append(((mx.log(total) + top - chosen) * weight).sum())
            slope = exps * (weight / total)
            slope = mx.put_along_axis(
                slope, target, mx.take_along_axis(slope, target, axis=-1) - weight, axis=-1
            )
            gradients.append(mx.vjp(logits_of, [part], [slope.astype(part.dtype)])[1][0])
        return sum(losses[1:], losses[0]), mx.concatenate(gradients)

    fused: Any = mx.custom_function(forward)

    @fused.vjp
    def _backward(primals, cotangents, outputs):  # type: ignore[no-untyped-def]
        _, labels, weights = primals
        return cotangents[0] * outputs[1], mx.zeros_like(labels), mx.zeros_like(weights)

    return lambda hidden, labels, weights: fused(hidden, labels, weights)[0]


class _Through:
    """Stands in for a backbone: hands its input on, and otherwise is the one it stands for."""

    def __init__(self, inner: nn.Module):
        self._inner = inner

    def __call__(self, hidden: mx.array, *_: Any, **__: Any) -> mx.array:
        return hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _language_model(model: nn.Module) -> nn.Module:
    language = getattr(model, "language_model", model)  # models that also see keep the text part here
    if not hasattr(language, "model") or not hasattr(language.model, "embed_tokens"):
        raise UserError(f"ainda não sei treinar modelos da família {type(model).__module__.split('.')[-1]}")
    return language
