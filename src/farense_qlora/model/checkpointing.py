"""Gradient checkpointing: a block keeps only its inputs and is computed again in the backward pass.

Not `mx.checkpoint`: it draws dropout anew when it computes again, which makes the gradient that of another
mask, and may do so long before its turn, which keeps in memory what was to be spared.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten


def use_checkpointing(model: nn.Module) -> None:
    """Make every block of `model` recompute its activations (Chen et al., 2016)."""
    for layer in model.layers:
        if not isinstance(layer, _Checkpointed):
            layer.__class__ = type("Checkpointed", (_Checkpointed, type(layer)), {})
        for module in layer.modules():
            if type(module) is nn.Dropout:
                module.__class__ = _KeyedDropout


class _Checkpointed:
    def __call__(self, x: mx.array, *inputs: Any, **options: Any) -> Any:
        trainable = tree_flatten(self.trainable_parameters())  # type: ignore[attr-defined]
        names = [name for name, _ in trainable]
        dropouts = [m for m in self.modules() if isinstance(m, _KeyedDropout) and m.drops]  # type: ignore[attr-defined]
        # An input, as the arrays are: of what is merely known here a compiled step would keep the tracer.
        drawn = mx.random.randint(0, 2**31 - 1, (len(dropouts), 2)) if dropouts else mx.zeros((1, 2))

        def compute(x: mx.array, keys: mx.array, *arrays: mx.array) -> mx.array:
            for number, dropout in enumerate(dropouts):
                dropout._key = keys[number]
            self.update(tree_unflatten(list(zip(names, arrays, strict=True))))  # type: ignore[attr-defined]
            try:
                return super(_Checkpointed, self).__call__(x, *inputs, **options)  # type: ignore[misc]
            finally:
                for dropout in dropouts:
                    dropout._key = None  # no state of the model

        block: Any = mx.custom_function(compute)

        @block.vjp
        def _backward(primals: Any, cotangent: mx.array, _: mx.array) -> Any:
            x, keys, *arrays = primals
            again = lambda x, *arrays: compute(x, keys, *arrays)
            slope, *others = mx.vjp(again, [mx.depends(x, cotangent), *arrays], [cotangent])[1]
            # The block before has to wait for these: put off, they would keep all that they are made from.
            return (mx.depends(slope, others) if others else slope, mx.zeros_like(keys), *others)

        return block(x, drawn.astype(mx.uint32), *(array for _, array in trainable))


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
