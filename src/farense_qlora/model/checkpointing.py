"""Gradient checkpointing: a block keeps only its inputs and is computed again in the backward pass.

Not `mx.checkpoint`: it draws dropout anew when it computes again, which makes the gradient that of another
mask, and may do so long before its turn, which keeps in memory what was to be spared.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten


def use_checkpointing(model: nn.Module) -> None:
    """Make every block of `model` recompute its activations (Chen et al., 2016)."""
    for layer in model.layers:
        block = type(layer)
        if block.__name__ != "Checkpointed":
            layer.__class__ = type("Checkpointed", (block,), {"__call__": _checkpointed(block.__call__)})
        for module in layer.modules():
            if type(module) is nn.Dropout:
                module.__class__ = _KeyedDropout


def _checkpointed(call: Callable[..., Any]) -> Callable[..., Any]:
    """The `__call__` of a block that computes as `call` does, and keeps nothing of it."""

    def checkpointed(block: nn.Module, x: mx.array, *inputs: Any, **options: Any) -> Any:
        trainable = dict(tree_flatten(block.trainable_parameters()))
        dropouts = [
            module for module in block.modules() if isinstance(module, _KeyedDropout) and module.drops
        ]
        # An input, as the arrays are: of what is merely known here a compiled step would keep the tracer.
        drawn = mx.random.randint(0, 2**31 - 1, (len(dropouts), 2)) if dropouts else mx.zeros((1, 2))

        def compute(x: mx.array, keys: mx.array, *arrays: mx.array) -> mx.array:
            for number, dropout in enumerate(dropouts):
                dropout._key = keys[number]
            block.update(tree_unflatten(list(zip(trainable, arrays, strict=True))))
            try:
                return call(block, x, *inputs, **options)
            finally:
                for dropout in dropouts:
                    dropout._key = None  # no state of the model

        recomputed: Any = mx.custom_function(compute)

        @recomputed.vjp
        def _backward(primals: Any, cotangent: mx.array, _: mx.array) -> Any:
            x, keys, *arrays = primals
            again = lambda x, *arrays: compute(x, keys, *arrays)
            grad, *others = mx.vjp(again, [mx.depends(x, cotangent), *arrays], [cotangent])[1]
            # The block before has to wait for these: put off, they would keep all that they are made from.
            return (mx.depends(grad, others) if others else grad, mx.zeros_like(keys), *others)

        return recomputed(x, drawn.astype(mx.uint32), *trainable.values())

    return checkpointed


class _KeyedDropout(nn.Dropout):
    """Dropout whose mask is a function of the key that its block gives it."""

    @property
    def drops(self) -> bool:
        """Whether it does anything now."""
        return self.training and self._p_1 < 1

    def __call__(self, x: mx.array) -> mx.array:
        """`x` of any shape, with a part of it zero and the rest larger for it."""
        if not self.drops:
            return x
        return mx.random.bernoulli(self._p_1, x.shape, key=self._key) * x * (1 / self._p_1)
