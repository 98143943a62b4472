"""Which rows share a window: planned from the lengths alone, anew for each epoch, as a function of the seed.

The plan works on the histogram of lengths (Krell et al., 2021, "Efficient sequence packing without
cross-contamination"): rows of one length are alike, so a million of them are as quick to plan as their few
hundred lengths, and every epoch has as many windows as the last. Within it, best-fit decreasing.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

ENOUGH = 0.95  # the share of positions to fill; a window that cannot is too short
STEP = 8  # windows are multiples of it

Pattern = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """Rows packed into windows: window `i` holds `rows[offsets[i]:offsets[i + 1]]`."""

    rows: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.rows[self.offsets[i] : self.offsets[i + 1]]


def patterns(lengths: np.ndarray, window: int) -> list[tuple[Pattern, int]]:
    """Patterns (lengths that share a window) and how many windows of each hold all `lengths` (rows,), none of
    which may pass `window`."""
    open_windows: dict[int, list[tuple[Pattern, int]]] = defaultdict(list)  # by the space left
    spaces = 0  # bit s is set while some open window has s positions left: the lowest that will do fits best
    sizes, counts = np.unique(lengths, return_counts=True)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        while count:
            fitting = spaces >> size
            pattern: Pattern = ()
            space, many = window, count
            if fitting:
                space = size + (fitting & -fitting).bit_length() - 1
                pattern, many = open_windows[space].pop()
            copies = min(space // size, count)
            used = min(many, count // copies)
            if pattern and used < many:
                open_windows[space].append((pattern, many - used))
            left = space - copies * size
            open_windows[left].append((pattern + (size,) * copies, used))
            spaces = spaces | 1 << left if open_windows[space] else (spaces | 1 << left) & ~(1 << space)
            count -= used * copies
    return [group for groups in open_windows.values() for group in groups]


def pack(lengths: np.ndarray, window: int, random: np.random.Generator) -> Windows:
    """Every row, `lengths` (rows,) tokens long, in exactly one window of `window` positions: at random among
    rows of its length, and the windows in random order."""
    groups = patterns(lengths, window)
    slots = np.concatenate([np.tile(np.array(pattern), many) for pattern, many in groups])
    sizes = np.concatenate([np.full(many, len(pattern)) for pattern, many in groups])
    rows = np.empty(len(lengths), np.int64)
    shuffled = random.permutation(len(lengths))
    rows[np.argsort(slots, kind="stable")] = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    turn = random.permutation(len(sizes))
    offsets = np.concatenate([[0], np.cumsum(sizes[turn])])
    return Windows(rows[np.repeat(starts[turn] - offsets[:-1], sizes[turn]) + np.arange(len(rows))], offsets)


def fill(lengths: np.ndarray, window: int) -> float:
    """The share of positions, from 0 to 1, that hold a token when rows of `lengths` (rows,) are packed."""
    return float(lengths.sum()) / (window * sum(many for _, many in patterns(lengths, window)))


def best_window(lengths: np.ndarray, at_least: int, at_most: int) -> int:
    """The shortest window of at least `at_least` positions that rows of `lengths` (rows,) fill well enough,
    or the best filled."""
    first = -(-max(at_least, int(lengths.max())) // STEP) * STEP
    fills = {}
    for window in range(first, max(first, min(at_most, 4 * first)) + 1, STEP):
        fills[window] = fill(lengths, window)
        if fills[window] >= ENOUGH:
            return window
    return max(fills, key=fills.__getitem__)
