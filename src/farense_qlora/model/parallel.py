"""Use every core of a CPU in one update: parts of a batch side by side, each on a stream of its own.

A multi-threaded BLAS leaves the cores idle, or waiting for one another, in all that is not a large matrix
product: nine tenths of a small model's step. On a GPU there is one part and nothing changes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_map

from .blas import blas_threads, cores

Item = TypeVar("Item")


@cache
def streams() -> list[mx.Stream]:
    """Where parts of a batch are computed side by side: one stream a core, or the GPU's one."""
    if mx.default_device().type != mx.DeviceType.cpu:
        return [mx.default_stream(mx.default_device())]
    return [mx.new_stream(mx.cpu) for _ in range(cores())]


def parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """`items` dealt out, as evenly as they go, into one part a stream (fewer if there are fewer items)."""
    count = min(len(streams()), len(items))
    return [items[i::count] for i in range(count)]


def summed(compute: Callable[[Item], Any], items: Sequence[Item]) -> Any:
    """The sum of the trees `compute(item)`, evaluated, each on a stream of its own (at most one a core)."""
    results = []
    for stream, item in zip(streams(), items, strict=False):
        with mx.stream(stream):
            results.append(compute(item))
    total = results[0]
    for other in results[1:]:
        total = tree_map(mx.add, total, other)
    with blas_threads(1 if len(results) > 1 else None):
        mx.eval(total)
    return total
