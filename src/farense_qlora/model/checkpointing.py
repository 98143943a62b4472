"""Gradient checkpointing: a block keeps only its inputs and is computed again in the backward pass.

Not `mx.checkpoint`: it draws dropout anew when it computes again, which makes the gradient that of another
mask, and may do so long before its turn, which keeps in memory what was to be spared.
"""

from collections.abc import Callable, Iterable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_unflatten

_FLOATS = object()


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

    def checkpointed(block: nn.Module, *inputs: Any, **options: Any) -> Any:
        trainable = dict(tree_flatten(block.trainable_parameters()))
        dropouts = [
            module for module in block.modules() if isinstance(module, _KeyedDropout) and module.drops
        ]
        # An input, as the arrays are: of what is merely known here a compiled step would keep the tracer.
        drawn = mx.random.randint(0, 2**31 - 1, (len(dropouts), 2)) if dropouts else mx.zeros((1, 2))
        # Some families hand on more than hidden states from block to block, also what has a gradient.
        floats, rest = _split((inputs, options))
        count, returned = len(floats), None

        def compute(keys: mx.array, *arrays: mx.array) -> list[mx.array]:
            nonlocal returned
            for number, dropout in enumerate(dropouts):
                dropout._key = keys[number]
            block.update(tree_unflatten(list(zip(trainable, arrays[count:], strict=True))))
            inputs, options = _joined(rest, arrays[:count])
            try:
                outputs, returned = _split(call(block, *inputs, **options))
                return outputs
            finally:
                for dropout in dropouts:
                    dropout._key = None  # no state of the model

        recomputed: Any = mx.custom_function(compute)

        @recomputed.vjp
        def _backward(primals: Any, cotangents: Any, _: Any) -> Any:
            keys, *arrays = primals
            again = lambda *arrays: compute(keys, *arrays)
            arrays[:count] = mx.depends(arrays[:count], cotangents)
            grads = mx.vjp(again, arrays, cotangents)[1]
            before, others = grads[:count], grads[count:]
            # The block before has to wait for these: put off, they would keep all that they are made from.
            return (mx.zeros_like(keys), *(mx.depends(before, others) if others else before), *others)

        outputs = recomputed(drawn.astype(mx.uint32), *floats, *trainable.values())
        return _joined(returned, outputs)

    return checkpointed


def _split(tree: Any) -> tuple[list[mx.array], Any]:
    """The arrays of floats in `tree`, and the tree with `_FLOATS` in their places."""
    found: list[mx.array] = []

    def take(leaf: Any) -> Any:
        if not (isinstance(leaf, mx.array) and mx.issubdtype(leaf.dtype, mx.floating)):
            return leaf
        found.append(leaf)
        return _FLOATS

    rest = tree_map(take, tree)
    return found, rest


def _joined(rest: Any, arrays: Iterable[mx.array]) -> Any:
    """The tree that `_split` took `arrays` from."""
    left = iter(arrays)
    return tree_map(lambda leaf: next(left) if leaf is _FLOATS else leaf, rest)


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
