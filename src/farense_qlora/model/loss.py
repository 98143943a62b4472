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
# What mlx-lm's families call the part before the head, and the embedding in it.
BACKBONES = ("model", "transformer", "backbone")
EMBEDDINGS = {"embed_tokens", "tok_embeddings", "wte", "embeddings", "embed_in"}


def backbone_and_head(model: nn.Module) -> tuple[nn.Module, Callable[[mx.array], mx.array]]:
    """The part of `model` that gives hidden states (..., D), after the last norm, and what makes logits
    (..., V) of them. Raises `UserError` when `model` has no such parts.

    The head is mlx-lm's own code, with whatever scale, bias or cap the family has: a shallow copy of the
    model, which shares every layer, in whose backbone's place hidden states go through unchanged.
    """
    language = getattr(model, "language_model", model)  # models that also see keep the text part here
    name = next((name for name in BACKBONES if name in language), None)
    if name is None or not EMBEDDINGS & {*language[name]}:
        family = type(model).__module__.split(".")[-1]
        raise UserError(f"ainda não sei treinar modelos da família {family}: escolha outro modelo base")
    backbone, head = language[name], copy.copy(language)
    if "embed_out" in backbone:  # GPT-NeoX has its head in there
        head, backbone = backbone.embed_out, copy.copy(backbone)
        backbone.embed_out = nn.Identity()
    else:
        setattr(head, name, _Through(backbone))
    return backbone, head


def token_losses(model: nn.Module, hidden: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    """The cross-entropies (N,) in nats, float32, of `labels` (N,) given `hidden` (N, D), and how far each
    label is behind what the model ranks first (N,), in nats too: 0 where it is that itself.

    While `model` is in training mode the gradient of `hidden` is made chunk by chunk in the same pass, where
    the logits are at hand; in evaluation mode none is. The head itself gets none. Raises `UserError` as
    `backbone_and_head` does.
    """
    (_, logits_of), training = backbone_and_head(model), model.training

    def forward(hidden: mx.array, labels: mx.array) -> tuple[mx.array, ...]:
        losses, behind, grads = [], [], []
        done: list[mx.array] = []
        size = max(ROWS_AT_LEAST, LOGITS_AT_ONCE // logits_of(hidden[:1]).shape[-1])
        for start in range(0, hidden.shape[0], size):
            rows = slice(start, start + size)
            # One chunk after the other: side by side they would all be held at once.
            part, label = mx.depends(hidden[rows], done) if done else hidden[rows], labels[rows, None]
            logits = logits_of(part).astype(mx.float32)
            best = mx.stop_gradient(logits.argmax(axis=-1, keepdims=True))
            top = mx.take_along_axis(logits, best, axis=-1)
            exps = exp(logits - top)
            total = exps.sum(axis=-1, keepdims=True)
            chosen = mx.take_along_axis(logits, label, axis=-1)
            losses.append((mx.log(total) + top - chosen)[:, 0])
            behind.append((top - chosen)[:, 0])
            if training:
                grad = exps / total  # the softmax, less 1 at the label
                grad = mx.put_along_axis(grad, label, mx.take_along_axis(grad, label, axis=-1) - 1, axis=-1)
                grads.append(mx.vjp(logits_of, [part], [grad.astype(part.dtype)])[1][0])
            done = [*losses[-1:], *grads[-1:]]
        return tuple(mx.concatenate(parts) for parts in (losses, behind, grads) if parts)

    if not training:
        losses, behind = forward(hidden, labels)
        return losses, behind
    fused: Any = mx.custom_function(forward)

    @fused.vjp
    def _backward(primals: Any, cotangents: Any, outputs: Any) -> Any:
        grads = outputs[2]
        return (cotangents[0][:, None] * grads).astype(grads.dtype), mx.zeros_like(primals[1])

    losses, behind, _ = fused(hidden, labels)
    return losses, behind


class _Through:
    """Stands in for a backbone: hands on the hidden states that it is given."""

    def __init__(self, inner: nn.Module):
        self._inner = inner

    def __call__(self, hidden: mx.array, *_: Any, **__: Any) -> mx.array:
        return hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
