"""One update of the adapter: gradients of micro-batches, clipping, AdamW. This is where the time goes."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..config import Config
from ..data.batches import Batch
from ..model.cpu.parallel import summed
from ..model.loss import head_loss
from ..model.machine import on_cpu
from ..model.packed import hidden_states

Arrays = tuple[mx.array | None, ...]


class Updater:
    """Updates the adapter of `model` as `config` says; `optimizer.state` is all that it remembers.

    All matrices A are one long vector to the optimizer, and so are all B: some twenty operations in place of
    thousands of small ones. AdamW: Loshchilov & Hutter (2019). In LoRA+ (Hayou et al., 2024) B learns
    `lora_plus_ratio` times faster. On a GPU the two halves of an update are compiled; on the CPU that does
    not pay.
    """

    def __init__(self, model: nn.Module, config: Config, compiled: bool | None = None):
        self.model, self.config = model, config
        self.optimizer = optim.MultiOptimizer(
            [optim.AdamW(config.learning_rate, weight_decay=config.weight_decay) for _ in "ab"],
            [lambda name, _: name == "lora_a"],
        )
        self.optimizer.init(_vectors(model.trainable_parameters()))
        self._gradients: Any = nn.value_and_grad(model, lambda *batch: batch_loss(model, *batch))
        self._step: Any = self._clip_and_step
        self._to_compile = not on_cpu() if compiled is None else compiled

    def __call__(self, batches: Sequence[Sequence[Batch]], rate: float) -> tuple[float, float]:
        """One update at the learning rate `rate` on micro-batches, each in parts to compute side by side.

        Returns the mean loss over all supervised tokens (nats) and the gradient's norm before clipping; when
        one of them is not finite nothing is updated.
        """
        if self._to_compile:
            self._compile()
        total = sum(batch.supervised for batch in chain(*batches))
        loss, gradients = 0.0, None
        for micro_batch in batches:
            part, slopes = summed(lambda batch: self._gradients(*arrays(batch, total)), micro_batch)
            loss += part.item()
            gradients = slopes if gradients is None else tree_map(mx.add, gradients, slopes)
        slopes = _vectors(gradients)
        norm = mx.sqrt(mx.stack([vector.square().sum() for vector in slopes.values()]).sum())
        length = float(norm)
        if not (math.isfinite(loss) and math.isfinite(length)):
            return loss, length
        for part, ratio in zip(self.optimizer.optimizers, (1.0, self.config.lora_plus_ratio), strict=True):
            part.learning_rate = rate * ratio
        self._step(slopes, norm)
        mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        return loss, length

    def _compile(self) -> None:
        """At the first update: a restored optimizer has other state objects than a new one."""
        state: list[Any] = [self.model.state, mx.random.state]
        self._gradients = mx.compile(self._gradients, inputs=state, outputs=state)
        state = [self.model.state, *(part.state for part in self.optimizer.optimizers)]
        self._step = mx.compile(self._step, inputs=state, outputs=state)
        self._to_compile = False

    def _clip_and_step(self, slopes: dict[str, mx.array], norm: mx.array) -> None:
        if self.config.max_grad_norm:
            shrink = mx.minimum(1.0, self.config.max_grad_norm / (norm + 1e-6))
            slopes = {name: vector * shrink for name, vector in slopes.items()}
        parameters = self.model.trainable_parameters()
        vectors = self.optimizer.apply_gradients(slopes, _vectors(parameters))
        self.model.update(_matrices(vectors, parameters))


def batch_loss(model: nn.Module, *batch: Any) -> mx.array:
    """The weighted sum, a scalar in nats, of the cross-entropies of a batch given as `arrays`."""
    inputs, segments, positions, labels, weights = batch
    hidden = hidden_states(model, inputs, segments)
    return head_loss(model)(hidden.reshape(-1, hidden.shape[-1])[positions], labels, weights)


def arrays(batch: Batch, total: int) -> Arrays:
    """What `batch_loss` takes, in the shapes of `Batch`; the weights are divided by `total`, the supervised
    tokens of the whole update."""
    segments = None if batch.segments is None else mx.array(batch.segments)
    weights = mx.array(batch.weights / total)
    return mx.array(batch.inputs), segments, mx.array(batch.positions), mx.array(batch.labels), weights


def _vectors(tree: Any) -> dict[str, mx.array]:
    """All arrays of one last name, "lora_a" or "lora_b", end to end."""
    groups: dict[str, list[mx.array]] = {}
    for name, array in tree_flatten(tree):
        groups.setdefault(name.split(".")[-1], []).append(array.reshape(-1))
    return {name: mx.concatenate(group) for name, group in groups.items()}


def _matrices(vectors: dict[str, mx.array], like: Any) -> Any:
    """The inverse of `_vectors`, for a tree of the shapes of `like`."""
    starts = dict.fromkeys(vectors, 0)
    matrices = []
    for name, array in tree_flatten(like):
        group = name.split(".")[-1]
        start = starts[group]
        starts[group] = start + array.size
        matrices.append((name, vectors[group][start : start + array.size].reshape(array.shape)))
    return tree_unflatten(matrices)
