"""One optimizer step: gradients of the micro-batches, clipping, AdamW. This is where the time goes.

Beside it stand the loss over a whole data set, the learning rate of a step, and the checks of its numbers.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..config import Config
from ..data.batches import Batch, collate_parts, make_sampler
from ..data.tokens import Encoded
from ..model.cpu.parallel import side_by_side, summed
from ..model.loss import token_losses
from ..model.machine import on_cpu, peak_memory
from ..model.packed import hidden_states
from . import ranks

# Of how many losses, at least and at most, the ordinary is known, and how far from it a spike is.
FEWEST, LOSSES, DEVIATIONS = 16, 64, 8.0


class Share(NamedTuple):
    """What one process did of an update: its loss (the sum, in nats), the positions where it is taken, those
    that hold a token and all, the seconds that its gradient took, and the most memory that it has held so
    far."""

    loss: float
    supervised: int
    tokens: int
    positions: int
    seconds: float
    peak_memory_gb: float


class Update(NamedTuple):
    """What an update came to: the mean loss over all supervised tokens (nats), the norm of the gradient
    before clipping, and the share of each process in it."""

    loss: float
    grad_norm: float
    shares: list[Share]


class Step:
    """Updates the LoRA matrices of `model` as `config` says; `state`, AdamW's, is all that it remembers.

    There may be hundreds of matrices, all small. To AdamW (Loshchilov & Hutter, 2019) all A are one long
    vector and all B another: some twenty operations in place of thousands. Each half has a learning rate of
    its own: in LoRA+ (Hayou et al., 2024) B learns `lora_plus_ratio` times faster.
    """

    def __init__(self, model: nn.Module, config: Config):
        self.model, self.config = model, config
        self._adamw: dict[str, Any] = {}
        for half, vector in flatten(model.trainable_parameters()).items():
            # Without the correction, mlx's default, the first hundreds of updates would be several times as
            # large as the learning rate says.
            self._adamw[half] = optim.AdamW(
                config.learning_rate, weight_decay=config.weight_decay, bias_correction=True
            )
            self._adamw[half].init({half: vector})
        self._loss_and_grads: Any = nn.value_and_grad(model, lambda *batch: batch_loss(model, *batch))
        self._clip_and_apply: Any = self._clip_and_apply_grads
        if not on_cpu():  # where compiling does not pay
            state = [model.state, mx.random.state]
            self._loss_and_grads = mx.compile(self._loss_and_grads, inputs=state, outputs=state)
            state = [model.state, *self.state["states"]]
            self._clip_and_apply = mx.compile(self._clip_and_apply, inputs=state, outputs=state)

    def __call__(self, micro_batches: Sequence[Sequence[Batch]], learning_rate: float) -> Update:
        """One step on all `micro_batches`, each given in the parts that are computed side by side, and on
        those that the other processes are given meanwhile.

        When the loss or the norm of the gradient is not finite nothing is updated.
        """
        start, loss, tree = time.perf_counter(), 0.0, None
        for parts in filter(len, micro_batches):
            part_loss, part_tree = summed(lambda part: self._loss_and_grads(*arrays(part)), parts)
            loss += part_loss.item()
            tree = part_tree if tree is None else tree_map(mx.add, tree, part_tree)
            mx.eval(tree)  # or those of all micro-batches would be held until the end
        if tree is None:  # fewer windows than processes: none for this one
            tree = tree_map(mx.zeros_like, self.model.trainable_parameters())
        batches = list(chain(*micro_batches))
        grads, shares = of_all(
            flatten(tree),
            Share(
                loss=loss,
                supervised=sum(batch.supervised for batch in batches),
                tokens=sum(batch.tokens for batch in batches),
                positions=sum(batch.inputs.size for batch in batches),
                seconds=time.perf_counter() - start,
                peak_memory_gb=peak_memory() / 1e9,
            ),
            self.config.reduce_dtype,
        )
        total = sum(share.supervised for share in shares)
        loss = sum(share.loss for share in shares) / total
        # The mean is taken here, in 32 bits: a small weight a token would make 16-bit gradients underflow.
        grads = {half: grad / total for half, grad in grads.items()}
        grad_norm = mx.sqrt(mx.stack([grad.square().sum() for grad in grads.values()]).sum())
        norm = float(grad_norm)
        if not_finite(loss, norm):
            return Update(loss, norm, shares)
        self._adamw["lora_a"].learning_rate = learning_rate
        self._adamw["lora_b"].learning_rate = learning_rate * self.config.lora_plus_ratio
        self._clip_and_apply(grads, grad_norm)
        mx.eval(self.model.trainable_parameters(), self.state)
        return Update(loss, norm, shares)

    def _clip_and_apply_grads(self, grads: dict[str, mx.array], norm: mx.array) -> None:
        if self.config.max_grad_norm:
            scale = mx.minimum(1.0, self.config.max_grad_norm / (norm + 1e-6))
            grads = {half: grad * scale for half, grad in grads.items()}
        parameters = self.model.trainable_parameters()
        vectors = flatten(parameters)
        for half, adamw in self._adamw.items():
            vectors |= adamw.apply_gradients({half: grads[half]}, {half: vectors[half]})
        self.model.update(unflatten(vectors, parameters))

    @property
    def state(self) -> dict[str, list[Any]]:
        """The state of AdamW for the matrices A and B, as checkpoints keep it."""
        return {"states": [adamw.state for adamw in self._adamw.values()]}

    def restore(self, state: dict[str, list[Any]]) -> None:
        """Put a `state` back; in place, since a compiled step holds on to the dictionaries."""
        for adamw, saved in zip(self._adamw.values(), state["states"], strict=True):
            adamw.state.update(saved)

    def agree(self) -> None:
        """Take over the matrices and the state of AdamW from the first process."""
        if ranks.size() > 1:
            self.model.update(ranks.agreed(self.model.trainable_parameters()))
            self.restore(ranks.agreed(self.state))


def of_all(grads: dict[str, mx.array], share: Share, dtype: str) -> tuple[dict[str, mx.array], list[Share]]:
    """The gradients of one process, summed over all in numbers of type `dtype`, and the share of each."""
    if ranks.size() == 1:
        return grads, [share]
    message = mx.concatenate(list(grads.values()))
    ends = np.cumsum([grad.size for grad in grads.values()]).tolist()[:-1]
    vectors = mx.split(ranks.total(message.astype(getattr(mx, dtype))).astype(message.dtype), ends)
    shares = [Share(one[0], *map(int, one[1:4]), *one[4:]) for one in ranks.each(share).tolist()]
    return dict(zip(grads, vectors, strict=True)), shares


def flatten(tree: Any) -> dict[str, mx.array]:
    """All matrices "lora_a" of a tree of parameters or gradients end to end, and all "lora_b"."""
    halves: dict[str, list[mx.array]] = {}
    for name, array in tree_flatten(tree):
        halves.setdefault(name.split(".")[-1], []).append(array.reshape(-1))
    return {half: mx.concatenate(arrays) for half, arrays in halves.items()}


def unflatten(vectors: dict[str, mx.array], like: Any) -> Any:
    """The inverse of `flatten`: a tree of the names and shapes of `like`."""
    starts = dict.fromkeys(vectors, 0)
    matrices = []
    for name, array in tree_flatten(like):
        half = name.split(".")[-1]
        end = starts[half] + array.size
        matrices.append((name, vectors[half][starts[half] : end].reshape(array.shape)))
        starts[half] = end
    return tree_unflatten(matrices)


def batch_loss(model: nn.Module, *batch: Any) -> mx.array:
    """The weighted sum, a scalar in nats, of the cross-entropies of a batch given as `arrays`."""
    inputs, segments, positions, labels, weights = batch
    hidden = hidden_states(model, inputs, segments)
    losses, _ = token_losses(model, hidden.reshape(-1, hidden.shape[-1])[positions], labels)
    return (losses * weights).sum()


def arrays(batch: Batch) -> tuple[mx.array | None, ...]:
    """What `batch_loss` takes, in the shapes of `Batch`."""
    numpy = (batch.inputs, batch.segments, batch.positions, batch.labels, batch.weights)
    return tuple(None if array is None else mx.array(array) for array in numpy)


def validation_loss(
    model: nn.Module, data: Encoded, config: Config, should_stop: Callable[[], bool] = lambda: False
) -> float | None:
    """Mean loss over every supervised token of `data`, in nats, without dropout; None when `should_stop()`,
    asked before each batch, as often in every process, said so."""
    count = side_by_side(model)
    sampler = make_sampler(config, data.lengths)
    loss, total = 0.0, 0
    model.eval()
    try:
        for micro_batch in ranks.share(list(chain(*(sampler[n] for n in range(sampler.updates_per_epoch))))):
            if should_stop():
                return None
            if micro_batch:
                parts = collate_parts(data, micro_batch, sampler.window, count)
                loss += summed(lambda part: batch_loss(model, *arrays(part)), parts).item()
                total += sum(part.supervised for part in parts)
    finally:
        model.train()
    loss, total = ranks.each([loss, total]).sum(axis=0) if ranks.size() > 1 else (loss, total)
    return float(loss / total)


def learning_rate(config: Config, peak: float, step: int, total_steps: int) -> float:
    """The learning rate of `step` (0 is the first) of `total_steps`: up to `peak` in a line, then as
    `config.lr_schedule` says; cosine: Loshchilov & Hutter (2017)."""
    warmup = round(config.warmup_ratio * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.lr_schedule == "constant":
        return peak
    done = (step - warmup) / max(1, total_steps - warmup)
    share = (1 + math.cos(math.pi * done)) / 2 if config.lr_schedule == "cosine" else 1 - done
    return peak * share


def not_finite(loss: float, grad_norm: float) -> str | None:
    """Which of the two is not a finite number, in Portuguese; None when both are."""
    if not math.isfinite(loss):
        return f"a perda não é um número finito ({loss})"
    if not math.isfinite(grad_norm):
        return f"o gradiente não é finito (norma {grad_norm})"
    return None


def spike_bound(losses: Sequence[float]) -> float:
    """The loss above which the next one is a spike: median + 8 standard deviations, these estimated from the
    median absolute deviation (Rousseeuw & Croux, 1993); infinite while there are too few losses."""
    if len(losses) < FEWEST:
        return math.inf
    median = statistics.median(losses)
    deviation = 1.4826 * statistics.median(abs(loss - median) for loss in losses)
    return median + DEVIATIONS * max(deviation, 0.01 * abs(median))
