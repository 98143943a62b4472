"""The order of training: which rows make update `n` is a function of the seed and `n` alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import mlx.core as mx
import numpy as np

from ..config import Config
from .packing import Windows, best_window, pack
from .tokens import Encoded, Example

# Rows of like length go together: sorting within pools this many batches large leaves little padding
# and keeps the order random.
POOL = 16
PAD_TO = 8

# The rows that share each window of one forward and backward pass.
MicroBatch = list[np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Windows side by side: `inputs` (B, L) int32; `segments` (B, L) int32, which row of its window a
    position belongs to (0: padding), or None when no window holds two; and of the positions where loss is
    taken the flat `positions` in (B x L), each one's next token in `labels` (N,) and `weights` (N,): 1, or 0
    for filling."""

    inputs: np.ndarray
    segments: np.ndarray | None
    positions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    tokens: int

    @property
    def supervised(self) -> int:
        """How many positions loss is taken at."""
        return int(self.weights.sum())


class Order(Protocol):
    """Shuffled updates, epoch after epoch: `order[n]` holds the micro-batches of update `n`, each to be
    padded to `window` positions, or to its longest row when that is None."""

    updates_per_epoch: int

    @property
    def window(self) -> int | None:
        """The length in positions that every window is padded to; None: to that of its longest row."""
        ...

    def __getitem__(self, n: int) -> list[MicroBatch]: ...


class Unpacked:
    """The `Order` of `batch_size` rows a micro-batch, each in a window of its own, like lengths together."""

    window = None

    def __init__(self, lengths: np.ndarray, batch_size: int, grad_accumulation_steps: int, seed: int):
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.micro_batches = grad_accumulation_steps
        self.updates_per_epoch = -(-len(lengths) // (batch_size * grad_accumulation_steps))
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def __getitem__(self, n: int) -> list[MicroBatch]:
        epoch, index = divmod(n, self.updates_per_epoch)
        chosen = self._epoch(epoch)[index * self.micro_batches : (index + 1) * self.micro_batches]
        return [[row[None] for row in rows] for rows in chosen]

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


class Packed:
    """The `Order` of rows packed into windows of one length: updates of as many rows on average as unpacked.

    With `short` windows (the CPU, where attention over long ones is dear) a window is as short as fills well,
    and an update has a multiple of `streams` of them; otherwise one window holds a whole update, if
    `max_seq_length` lets it. A micro-batch never has more positions than `batch_size` rows of full length.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        grad_accumulation_steps: int,
        seed: int,
        max_seq_length: int,
        short: bool = False,
        streams: int = 1,
    ):
        self.lengths, self.seed = lengths - 1, seed  # a row of n tokens has n - 1 to predict from
        rows = min(batch_size * grad_accumulation_steps, len(lengths))
        positions = rows * float(self.lengths.mean())
        self.window = best_window(
            self.lengths, 0 if short else min(int(positions), max_seq_length), max_seq_length
        )
        self._epoch = lru_cache(maxsize=2)(self._packed)
        windows = len(self._epoch(0))
        self.windows_per_update = max(1, round(rows * windows / len(lengths) / streams) * streams)
        self.windows_per_update = min(self.windows_per_update, windows)
        self.updates_per_epoch = -(-windows // self.windows_per_update)
        at_once = max(1, batch_size * max_seq_length // self.window)
        self.micro_batches = -(-self.windows_per_update // at_once)

    def __getitem__(self, n: int) -> list[MicroBatch]:
        epoch, index = divmod(n, self.updates_per_epoch)
        windows = self._epoch(epoch)
        start = index * self.windows_per_update
        chosen = range(start, min(start + self.windows_per_update, len(windows)))
        each = -(-self.windows_per_update // self.micro_batches)
        return [[windows[i] for i in chosen[k : k + each]] for k in range(0, len(chosen), each)]

    def _packed(self, epoch: int) -> Windows:
        return pack(self.lengths, self.window, np.random.default_rng([self.seed, epoch]))


def collate(
    windows: Sequence[Sequence[Example]], window: int | None = None, few_shapes: bool = False
) -> Batch:
    """Put windows side by side, each with its examples one after the other, padded on the right to `window`
    positions (None: those of the longest), and gather the positions where loss is taken.

    With `few_shapes` more is padded, so that a compiled step meets a handful of shapes in all.
    """
    sizes = [sum(len(example.tokens) - 1 for example in examples) for examples in windows]
    step = 4 * PAD_TO if few_shapes else PAD_TO
    width = window or -(-max(sizes) // step) * step
    inputs = np.zeros((len(windows), width), np.int32)
    segments = np.zeros((len(windows), width), np.int32)
    positions, labels = [], []
    for i, examples in enumerate(windows):
        start = 0
        for segment, example in enumerate(examples, 1):
            end = start + len(example.tokens) - 1
            inputs[i, start:end] = example.tokens[:-1]
            segments[i, start:end] = segment
            where = np.flatnonzero(example.supervised[1:])
            positions.append(i * width + start + where)
            labels.append(example.tokens[1:][where])
            start = end
    flat, targets = np.concatenate(positions).astype(np.int32), np.concatenate(labels)
    filling = -len(flat) % (max(PAD_TO, inputs.size // 8) if few_shapes else PAD_TO)
    return Batch(
        inputs,
        segments if any(len(examples) > 1 for examples in windows) else None,
        np.pad(flat, (0, filling)),
        np.pad(targets, (0, filling)),
        np.pad(np.ones(len(flat), np.float32), (0, filling)),
        sum(sizes),
    )


def make_sampler(config: Config, lengths: np.ndarray, parts: int) -> Order:
    """The updates of rows of `lengths` (rows,) tokens, packed or not as `config` says, for this device and
    for batches of which so many `parts` are computed side by side."""
    common = (lengths, config.batch_size, config.grad_accumulation_steps, config.seed)
    if not config.packing:
        return Unpacked(*common)
    return Packed(*common, config.max_seq_length, short=_on_cpu(), streams=parts)


def collate_parts(encoded: Encoded, micro_batch: MicroBatch, window: int | None, parts: int) -> list[Batch]:
    """The batches of a micro-batch, dealt out into `parts` (or one a window, if those are fewer)."""
    parts = min(parts, len(micro_batch))
    return [
        collate([[encoded[row] for row in rows] for rows in micro_batch[i::parts]], window, not _on_cpu())
        for i in range(parts)
    ]


def _on_cpu() -> bool:
    return bool(mx.default_device() == mx.cpu)
