"""The order of training is a function of seed and update; every row is seen once an epoch."""

from collections.abc import Callable

import numpy as np
import pytest

from farense_qlora.data.batches import Order, Packed, Unpacked, collate
from farense_qlora.data.tokens import Example

LENGTHS = np.random.default_rng(0).integers(5, 90, 253)
ORDERS = {
    "unpacked": lambda seed: Unpacked(LENGTHS, 4, 3, seed),
    "packed, short windows": lambda seed: Packed(LENGTHS, 4, 3, seed, 256, short=True, streams=2),
    "packed, long windows": lambda seed: Packed(LENGTHS, 4, 3, seed, 256),
}
each_order = pytest.mark.parametrize("order_of", ORDERS.values(), ids=ORDERS.keys())


def rows_of(order: Order, n: int) -> list[int]:
    return [int(row) for windows in order[n] for rows in windows for row in rows]


@each_order
def test_every_row_once_an_epoch_in_another_order_each(order_of: Callable[[int], Order]) -> None:
    order = order_of(1)
    epochs = [
        [row for n in range(order.updates_per_epoch) for row in rows_of(order, start + n)]
        for start in (0, order.updates_per_epoch)
    ]
    assert all(sorted(epoch) == list(range(253)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@each_order
def test_an_update_can_be_had_without_those_before_it(order_of: Callable[[int], Order]) -> None:
    one, other = order_of(7), order_of(7)
    for n in range(70):
        one[n]
    assert rows_of(one, 70) == rows_of(other, 70) != rows_of(order_of(8), 70)


def test_packing_keeps_the_rows_of_an_update_and_its_shape() -> None:
    lengths = np.random.default_rng(3).integers(10, 60, 2000)
    order = Packed(lengths, 16, 2, 0, 128, short=True, streams=2)
    sizes = [len(rows_of(order, n)) for n in range(order.updates_per_epoch)]
    assert np.mean(sizes[:-1]) == pytest.approx(32, rel=0.1)
    shapes = {tuple(len(windows) for windows in order[n]) for n in range(order.updates_per_epoch - 1)}
    assert len(shapes) == 1 and shapes.pop()[0] % 2 == 0


def test_a_long_window_holds_a_whole_update_and_no_micro_batch_passes_the_limit() -> None:
    lengths = np.random.default_rng(3).integers(10, 60, 2000)
    assert [len(windows) for windows in Packed(lengths, 1, 8, 0, 512)[0]] == [1]
    order = Packed(lengths, 1, 64, 0, 128)  # 64 rows are more than one window of 128 holds
    assert all(len(windows) == 1 for windows in order[0]) and len(order[0]) > 10


def test_rows_of_like_length_go_together() -> None:
    lengths = np.random.default_rng(1).integers(10, 100, 640)
    order = Unpacked(lengths, 8, 1, seed=0)
    padded = sum(8 * max(lengths[rows_of(order, n)]) for n in range(order.updates_per_epoch))
    assert lengths.sum() / padded > 0.9


def test_collate_predicts_the_next_token_where_loss_is_taken_and_nowhere_else() -> None:
    short = Example(np.array([1, 5, 6, 2], np.int32), np.array([False, False, True, True]))
    long = Example(np.array([1, 7, 8, 9, 2], np.int32), np.array([False, True, False, False, True]))
    batch = collate([[short], [long]])
    inputs, flat = batch.inputs.reshape(-1), (batch.positions, batch.labels, batch.weights)
    pairs = [(int(inputs[p]), int(y)) for p, y, w in zip(*flat, strict=True) if w]
    assert pairs == [(5, 6), (6, 2), (1, 7), (9, 2)]
    assert batch.supervised == 4 and batch.tokens == 7


def test_collate_packs_rows_one_after_the_other_and_predicts_nothing_across_them() -> None:
    first = Example(np.array([1, 5, 6, 2], np.int32), np.array([False, False, True, True]))
    second = Example(np.array([1, 7, 8, 2], np.int32), np.array([True, False, True, True]))
    batch = collate([[first, second]], window=8)
    assert batch.inputs.tolist() == [[1, 5, 6, 1, 7, 8, 0, 0]]
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2, 2, 0, 0]]
    learnt = [(int(batch.inputs[0, p]), int(y)) for p, y in zip(batch.positions, batch.labels, strict=True)]
    assert learnt[: batch.supervised] == [(5, 6), (6, 2), (7, 8), (8, 2)]


def test_few_shapes_are_few() -> None:
    random = np.random.default_rng(0)
    shapes = set()
    for _ in range(200):
        rows = [
            [Example(np.arange(n, dtype=np.int32), np.arange(n) >= n // 2)] for n in random.integers(9, 60, 4)
        ]
        batch = collate(rows, few_shapes=True)
        shapes.add((batch.inputs.shape, batch.labels.shape))
    assert len(shapes) <= 16
