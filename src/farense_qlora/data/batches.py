"""Rows to batches: which rows make update `n`, a function of the seed and `n` alone, and their arrays.

Rows are packed on the histogram of their lengths (Krell et al., 2021, "Efficient sequence packing without
cross-contamination"), by best-fit decreasing: a million rows are as quick to plan as their few hundred
lengths, and every epoch has as many windows as the last.
"""

import math
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from ..config import Config
from .tokens import Encoded, Example

# Rows of like length go together: sorting within pools this many batches large leaves little padding
# and keeps the order random.
POOL = 16
PAD_TO = 8  # lengths and counts that a compiled step meets are multiples of it
ENOUGH = 0.95  # the share of positions to fill: a shorter window is not worth less

MicroBatch = list[np.ndarray]  # the rows that share each window of one forward and backward pass
Bin = tuple[int, ...]  # lengths that share a window


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows side by side, as one forward and backward pass takes them.

    `inputs` (B, L) int32; `segments` (B, L) int32, which row of its window a position belongs to (0:
    padding), or None when no window holds two. Of the positions where loss is taken: the flat `positions`
    (N,) in B x L, each one's next token in `labels` (N,), and `weights` (N,): 1, or 0 for padding. `tokens`
    counts the positions that are no padding.
    """

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


@dataclass(frozen=True)
class BatchSampler:
    """Shuffled updates, epoch after epoch: `sampler[n]` holds the micro-batches of update `n`.

    `plan(epoch)` are the updates of one epoch. Every window is padded to `window` positions; None: to that of
    the longest in its micro-batch.
    """

    plan: Callable[[int], list[list[MicroBatch]]]
    updates_per_epoch: int
    window: int | None = None

    def __getitem__(self, n: int) -> list[MicroBatch]:
        epoch, index = divmod(n, self.updates_per_epoch)
        return self.plan(epoch)[index]


def make_sampler(config: Config, lengths: np.ndarray) -> BatchSampler:
    """The updates of rows of `lengths` (rows,) tokens, packed or not as `config` says, for this device."""
    if config.packing:
        return packed_sampler(config, lengths, short=_on_cpu())
    return length_grouped_sampler(config, lengths)


def length_grouped_sampler(config: Config, lengths: np.ndarray) -> BatchSampler:
    """`batch_size` rows a micro-batch, each in a window of its own, like lengths together."""
    size, at_once = config.batch_size, config.grad_accumulation_steps

    @lru_cache(maxsize=1)
    def plan(epoch: int) -> list[list[MicroBatch]]:
        random = np.random.default_rng([config.seed, epoch])
        batches: list[MicroBatch] = []
        for pool in _chunks(random.permutation(len(lengths)), POOL * size):
            by_length = pool[np.argsort(lengths[pool], kind="stable")]
            batches += [list(rows[:, None]) for rows in _chunks(by_length, size)]
        return _chunks([batches[i] for i in random.permutation(len(batches))], at_once)

    return BatchSampler(plan, -(-len(lengths) // (size * at_once)))


def packed_sampler(config: Config, lengths: np.ndarray, short: bool = False) -> BatchSampler:
    """Rows packed into windows of one length: updates of as many rows on average as without packing.

    With `short` windows (the CPU, where attention over long ones is dear) a window is as short as fills well,
    and an update has a number of them that is easily shared out, the same on however many cores; otherwise
    one window holds a whole update, if `max_seq_length` lets it. A micro-batch never has more positions than
    `batch_size` rows of full length.
    """
    lengths = lengths - 1  # a row of n tokens has n - 1 to predict from
    longest, rows = config.max_seq_length, config.batch_size * config.grad_accumulation_steps
    rows = min(rows, len(lengths))
    at_least = 0 if short else min(int(rows * float(lengths.mean())), longest)
    window = best_window(lengths, at_least, longest)
    planned = bins(lengths, window)
    windows = sum(many for _, many in planned)
    wanted = rows * windows / len(lengths)
    share = 2 ** max(0, int(math.log2(max(1, wanted))) - 2)  # a power of two, at most a quarter of them
    an_update = min(max(1, round(wanted / share) * share), windows)
    micro_batches = -(-an_update // max(1, config.batch_size * longest // window))
    a_micro_batch = -(-an_update // micro_batches)

    @lru_cache(maxsize=1)
    def plan(epoch: int) -> list[list[MicroBatch]]:
        packed = pack(lengths, planned, np.random.default_rng([config.seed, epoch]))
        return [_chunks(update, a_micro_batch) for update in _chunks(packed, an_update)]

    return BatchSampler(plan, -(-windows // an_update), window)


def halved(micro_batches: list[MicroBatch]) -> list[MicroBatch]:
    """The same rows in micro-batches of half as many windows, or in windows of half as many rows."""
    halves: list[MicroBatch] = []
    for windows in micro_batches:
        middle, half = len(windows) // 2, len(windows[0]) // 2
        if middle:
            halves += [windows[:middle], windows[middle:]]
        elif half:
            halves += [[windows[0][:half]], [windows[0][half:]]]
        else:
            halves.append(windows)  # a single row is as small as it gets
    return halves


def collate_parts(encoded: Encoded, micro_batch: MicroBatch, window: int | None, parts: int) -> list[Batch]:
    """The batches of a micro-batch, dealt out into `parts` (or one a window, if those are fewer)."""
    parts = min(parts, len(micro_batch))
    return [
        collate([[encoded[row] for row in rows] for rows in micro_batch[i::parts]], window, not _on_cpu())
        for i in range(parts)
    ]


def collate(
    windows: Sequence[Sequence[Example]], window: int | None = None, pad_to_bucket: bool = False
) -> Batch:
    """Put windows side by side, each with its examples one after the other, padded on the right to `window`
    positions (None: those of the longest), and gather the positions where loss is taken.

    With `pad_to_bucket` more is padded, so that a compiled step meets a handful of shapes in all.
    """
    sizes = [sum(len(example.tokens) - 1 for example in examples) for examples in windows]
    width = window or (_bucket(max(sizes)) if pad_to_bucket else -(-max(sizes) // PAD_TO) * PAD_TO)
    inputs, segments = np.zeros((2, len(windows), width), np.int32)
    positions, labels = [], []
    for i, examples in enumerate(windows):
        start = 0
        for segment, example in enumerate(examples, 1):
            end = start + len(example.tokens) - 1
            inputs[i, start:end] = example.tokens[:-1]
            segments[i, start:end] = segment
            learnt = np.flatnonzero(example.supervised[1:])
            positions.append(i * width + start + learnt)
            labels.append(example.tokens[1:][learnt])
            start = end
    flat = np.concatenate(positions).astype(np.int32)
    padding = 0, (_bucket(len(flat)) - len(flat) if pad_to_bucket else -len(flat) % PAD_TO)
    return Batch(
        inputs=inputs,
        segments=segments if any(len(examples) > 1 for examples in windows) else None,
        positions=np.pad(flat, padding),
        labels=np.pad(np.concatenate(labels), padding),
        weights=np.pad(np.ones(len(flat), np.float32), padding),
        tokens=sum(sizes),
    )


def bins(lengths: np.ndarray, window: int) -> list[tuple[Bin, int]]:
    """The bins that hold all `lengths` (rows,), none of which may pass `window`, and how many of each.

    >>> bins(np.array([5, 3, 3, 2, 2]), 8)
    [((5, 3), 1), ((3, 2, 2), 1)]
    """
    open_bins: dict[int, list[tuple[Bin, int]]] = defaultdict(list)  # by the space left
    spaces: list[int] = []  # those that some bin has left, sorted: the first that will do fits best

    def put(space: int, content: Bin, many: int) -> None:
        if not open_bins[space]:
            insort(spaces, space)
        open_bins[space].append((content, many))

    sizes, counts = np.unique(lengths, return_counts=True)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            best = bisect_left(spaces, size)
            content: Bin = ()
            space, many = window, count  # a new bin, unless an open one has room
            if best < len(spaces):
                space = spaces[best]
                content, many = open_bins[space].pop()
                if not open_bins[space]:
                    del spaces[best]
            copies = min(space // size, count)
            used = min(many, count // copies)
            if content and used < many:
                put(space, content, many - used)
            put(space - copies * size, content + (size,) * copies, used)
            count -= used * copies
    return [one for some in open_bins.values() for one in some]


def pack(
    lengths: np.ndarray, planned: list[tuple[Bin, int]], random: np.random.Generator
) -> list[np.ndarray]:
    """The rows in each window: every row, `lengths` (rows,) tokens long, in exactly one of the `planned`
    bins, at random among rows of its length, and the windows in random order."""
    slots = np.concatenate([np.tile(np.array(content), many) for content, many in planned])
    sizes = np.concatenate([np.full(many, len(content)) for content, many in planned])
    rows = np.empty(len(lengths), np.int64)
    shuffled = random.permutation(len(lengths))
    rows[np.argsort(slots, kind="stable")] = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    windows = [rows[start:end] for start, end in pairwise([0, *np.cumsum(sizes).tolist()])]
    return [windows[i] for i in random.permutation(len(windows))]


def best_window(lengths: np.ndarray, at_least: int, at_most: int) -> int:
    """The shortest window of at least `at_least` positions that rows of `lengths` (rows,) fill well enough,
    or the best filled."""
    first = -(-max(at_least, int(lengths.max())) // PAD_TO) * PAD_TO
    filled: dict[int, float] = {}
    for window in range(first, max(first, min(at_most, 4 * first)) + 1, PAD_TO):
        positions = window * sum(many for _, many in bins(lengths, window))
        filled[window] = float(lengths.sum()) / positions
        if filled[window] >= ENOUGH:
            return window
    return max(filled, key=filled.__getitem__)


def _bucket(size: int) -> int:
    """The least of 8, 16, 24, 32, 48, 64, 96, ... that `size` fits in."""
    power = PAD_TO
    while power < size:
        power *= 2
    return power * 3 // 4 if power > 2 * PAD_TO and size <= power * 3 // 4 else power


def _chunks(items: Any, size: int) -> list[Any]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _on_cpu() -> bool:
    import mlx.core as mx  # not before `model.cpu.enable`

    return bool(mx.default_device().type == mx.DeviceType.cpu)
