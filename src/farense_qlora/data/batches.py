"""The order of training: which rows make update `n` is a function of the seed and `n` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .tokens import Example

# Rows of like length go together: sorting within pools this many batches large leaves little padding
# and keeps the order random.
POOL = 16
PAD_TO = 8


@dataclass(frozen=True)
class Batch:
    """Rows side by side: `inputs` (B, L) int32, and of the positions where loss is taken the flat `positions`
    in (B x L), each one's next token in `labels` (N,) and `weights` (N,): 1, or 0 for filling."""

    inputs: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    tokens: int

    @property
    def supervised(self) -> int:
        return int(self.weights.sum())


class Order:
    """Shuffled updates, epoch after epoch: `order[n]` holds the micro-batches (row numbers) of update `n`."""

    def __init__(self, lengths: np.ndarray, batch_size: int, grad_accumulation_steps: int, seed: int):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.micro_batches = grad_accumulation_steps
        self.updates_per_epoch = -(-len(lengths) // (batch_size * grad_accumulation_steps))
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, n: int) -> list[np.ndarray]:
        epoch, index = divmod(n, self.updates_per_epoch)
        return self._epoch(epoch)[index * self.micro_batches : (index + 1) * self.micro_batches]

    def _shuffled(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        pool = POOL * self.batch_size
        for start in range(0, len(rows), pool):
            part = rows[start : start + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]


def in_order(lengths: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All rows once, shortest first, for evaluation."""
    rows = np.argsort(lengths, kind="stable")
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def collate(examples: Sequence[Example], pad: int = 0) -> Batch:
    """Put examples side by side, padded on the right, and gather the positions where loss is taken."""
    longest = max(len(example.tokens) for example in examples) - 1
    width = -(-longest // PAD_TO) * PAD_TO
    inputs = np.full((len(examples), width), pad, np.int32)
    positions, labels = [], []
    for i, example in enumerate(examples):
        inputs[i, : len(example.tokens) - 1] = example.tokens[:-1]
        where = np.flatnonzero(example.supervised[1:])
        positions.append(i * width + where)
        labels.append(example.tokens[1:][where])
    flat, targets = np.concatenate(positions).astype(np.int32), np.concatenate(labels)
    filling = -len(flat) % PAD_TO
    return Batch(
        inputs,
        np.pad(flat, (0, filling)),
        np.pad(targets, (0, filling)),
        np.pad(np.ones(len(flat), np.float32), (0, filling)),
        sum(len(example.tokens) - 1 for example in examples),
    )
