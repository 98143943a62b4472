"""The order of training is a function of seed and update; every row is seen once an epoch."""

import numpy as np

from farense_qlora.data.batches import Order, collate, in_order
from farense_qlora.data.tokens import Example

LENGTHS = np.random.default_rng(0).integers(5, 90, 53)


def test_every_row_once_an_epoch_in_another_order_each() -> None:
    order = Order(LENGTHS, batch_size=4, grad_accumulation_steps=3, seed=1)
    epochs = [
        np.concatenate([rows for n in range(order.updates_per_epoch) for rows in order[start + n]])
        for start in (0, order.updates_per_epoch)
    ]
    assert all(sorted(epoch) == list(range(53)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()


def test_an_update_can_be_had_without_those_before_it() -> None:
    one, other = (Order(LENGTHS, 4, 2, seed=7) for _ in range(2))
    for n in range(20):
        one[n]
    assert all(np.array_equal(a, b) for a, b in zip(one[20], other[20], strict=True))
    assert not np.array_equal(one[20][0], Order(LENGTHS, 4, 2, seed=8)[20][0])


def test_rows_of_like_length_go_together() -> None:
    lengths = np.random.default_rng(1).integers(10, 100, 640)
    order = Order(lengths, 8, 1, seed=0)
    padded = sum(len(rows) * lengths[rows].max() for n in range(order.updates_per_epoch) for rows in order[n])
    assert lengths.sum() / padded > 0.9


def test_evaluation_takes_every_row_shortest_first() -> None:
    batches = in_order(LENGTHS, 10)
    assert sorted(np.concatenate(batches)) == list(range(53))
    assert np.all(np.diff([LENGTHS[rows].max() for rows in batches]) >= 0)


def test_collate_predicts_the_next_token_where_loss_is_taken_and_nowhere_else() -> None:
    short = Example(np.array([1, 5, 6, 2], np.int32), np.array([False, False, True, True]))
    long = Example(np.array([1, 7, 8, 9, 2], np.int32), np.array([False, True, False, False, True]))
    batch = collate([short, long])
    inputs, flat = batch.inputs.reshape(-1), (batch.positions, batch.labels, batch.weights)
    pairs = [(int(inputs[p]), int(y)) for p, y, w in zip(*flat, strict=True) if w]
    assert pairs == [(5, 6), (6, 2), (1, 7), (9, 2)]
    assert batch.supervised == 4 and batch.tokens == 7
