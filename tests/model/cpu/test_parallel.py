"""Side by side is the same as one after the other."""

import mlx.core as mx
import pytest

from farense_qlora.model.cpu.blas import blas_threads, cores
from farense_qlora.model.cpu.parallel import parts, summed


def test_parts_deal_out_every_item_once() -> None:
    dealt = parts(list(range(7)), 2)
    assert sorted(item for part in dealt for item in part) == list(range(7))
    assert len(dealt) == 2
    assert parts([1], 2) == [[1]]


def test_summed_adds_trees_over_parts() -> None:
    items = parts([1.0, 2.0, 3.0, 4.0], cores())
    total = summed(lambda part: {"sum": mx.array(sum(part)), "count": mx.array(len(part))}, items)
    assert total["sum"].item() == 10 and total["count"].item() == 4


def test_summed_leaves_out_nothing_when_there_are_more_parts_than_cores() -> None:
    items = [1.0] * (2 * cores() + 1)
    assert summed(mx.array, items).item() == len(items)


def test_blas_threads_come_back_after_an_error() -> None:
    with pytest.raises(KeyError), blas_threads(1):
        raise KeyError
    a = mx.ones((64, 64))
    assert (a @ a)[0, 0].item() == 64
