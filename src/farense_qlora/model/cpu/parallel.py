"""Use every core of a CPU in one update: parts of a batch side by side, each on a stream of its own.

A multi-threaded BLAS leaves the cores idle, or waiting for one another, in all that is not a large matrix
product: nine tenths of a small model's step. On a GPU there is one part and nothing changes.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from itertools import cycle
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..machine import on_cpu
from .blas import blas_threads, cores, denormals_flushed
from .ops import keeps_dense

Item = TypeVar("Item")


@cache
def streams() -> list[mx.Stream]:
    """One stream a core, or the GPU's one."""
    if not on_cpu():
        return [mx.default_stream(mx.default_device())]
    made = [mx.new_stream(mx.cpu) for _ in range(cores())]
    with denormals_flushed():  # the first computation on a stream starts its thread
        mx.eval([mx.add(mx.zeros(1), 1, stream=stream) for stream in made])
    return made


def side_by_side(model: nn.Module) -> int:
    """How many parts of a batch `model` should compute at once: one a stream, or one in all when it
    dequantizes its weights as it goes, since each part would repeat that."""
    return len(streams()) if keeps_dense(model) else 1


def parts(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """`items` dealt out, as evenly as they go, into `count` parts (fewer if there are fewer items)."""
    count = min(count, len(items))
    return [items[i::count] for i in range(count)]


def each(
    compute: Callable[[Item], Any], items: Sequence[Item], together: Callable[[list[Any]], Any] = list
) -> Any:
    """The trees `compute(item)`, put `together`, evaluated; `items` take turns on the streams."""
    results = []
    for item, stream in zip(items, cycle(streams()), strict=False):
        with mx.stream(stream):
            results.append(compute(item))
    tree = together(results)
    with blas_threads(1 if len(items) > 1 else None):
        mx.eval(tree)
    return tree


def summed(compute: Callable[[Item], Any], items: Sequence[Item]) -> Any:
    """The sum of the trees `compute(item)`, of at least one item, evaluated as by `each`."""
    return each(compute, items, partial(reduce, lambda one, other: tree_map(mx.add, one, other)))
