"""The order of training is a function of seed and update; every row is seen once an epoch, packed or not."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farense_qlora.config import HOME, Config
from farense_qlora.data.batches import (
    BatchSampler,
    best_window,
    bins,
    collate,
    collate_parts,
    length_grouped_sampler,
    pack,
    packed_sampler,
)
from farense_qlora.data.tokens import Example, encode, read_rows
from farense_qlora.model.base import load_base


def settings(batch_size: int, grad_accumulation_steps: int, max_seq_length: int, seed: int = 0) -> Config:
    return Config(
        batch_size=batch_size,
        grad_accumulation_steps=grad_accumulation_steps,
        max_seq_length=max_seq_length,
        seed=seed,
    )


LENGTHS = np.random.default_rng(0).integers(5, 90, 253)
SAMPLERS = {
    "unpacked": lambda seed: length_grouped_sampler(settings(4, 3, 512, seed), LENGTHS),
    "packed, short windows": lambda seed: packed_sampler(settings(4, 3, 256, seed), LENGTHS, short=True),
    "packed, long windows": lambda seed: packed_sampler(settings(4, 3, 256, seed), LENGTHS),
}
each_sampler = pytest.mark.parametrize("sampler_of", SAMPLERS.values(), ids=SAMPLERS.keys())


def rows_of(sampler: BatchSampler, n: int) -> list[int]:
    return [int(row) for windows in sampler[n] for rows in windows for row in rows]


@each_sampler
def test_every_row_once_an_epoch_in_another_order_each(sampler_of: Callable[[int], BatchSampler]) -> None:
    sampler = sampler_of(1)
    epochs = [
        [row for n in range(sampler.updates_per_epoch) for row in rows_of(sampler, start + n)]
        for start in (0, sampler.updates_per_epoch)
    ]
    assert all(sorted(epoch) == list(range(253)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@each_sampler
def test_an_update_can_be_had_without_those_before_it(sampler_of: Callable[[int], BatchSampler]) -> None:
    one, other = sampler_of(7), sampler_of(7)
    for n in range(70):
        one[n]
    assert rows_of(one, 70) == rows_of(other, 70) != rows_of(sampler_of(8), 70)


def test_packing_keeps_the_rows_of_an_update_and_its_shape() -> None:
    lengths = np.random.default_rng(3).integers(10, 60, 2000)
    sampler = packed_sampler(settings(16, 2, 128), lengths, short=True)
    sizes = [len(rows_of(sampler, n)) for n in range(sampler.updates_per_epoch)]
    assert np.mean(sizes[:-1]) == pytest.approx(32, rel=0.1)
    shapes = {tuple(len(windows) for windows in sampler[n]) for n in range(sampler.updates_per_epoch - 1)}
    assert len(shapes) == 1 and shapes.pop()[0] % 4 == 0


def test_a_long_window_holds_a_whole_update_and_no_micro_batch_passes_the_limit() -> None:
    lengths = np.random.default_rng(3).integers(10, 60, 2000)
    assert [len(windows) for windows in packed_sampler(settings(1, 8, 512), lengths)[0]] == [1]
    sampler = packed_sampler(settings(1, 64, 128), lengths)  # 64 rows are more than one window of 128 holds
    assert all(len(windows) == 1 for windows in sampler[0]) and len(sampler[0]) > 10


def test_rows_of_like_length_go_together() -> None:
    lengths = np.random.default_rng(1).integers(10, 100, 640)
    sampler = length_grouped_sampler(settings(8, 1, 512), lengths)
    padded = sum(8 * max(lengths[rows_of(sampler, n)]) for n in range(sampler.updates_per_epoch))
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
    shapes, tokens, positions = set(), 0, 0
    for _ in range(500):
        longest = random.integers(9, 512)
        lengths = random.integers(0.8 * longest, longest + 1, 4)
        prompts = random.integers(4, lengths)
        rows = [
            [Example(np.arange(n, dtype=np.int32), np.arange(n) >= prompt)]
            for n, prompt in zip(lengths, prompts, strict=True)
        ]
        batch = collate(rows, pad_to_bucket=True)
        shapes.add((batch.inputs.shape, batch.labels.shape))
        tokens, positions = tokens + batch.tokens, positions + batch.inputs.size
    assert len(shapes) <= 60 and tokens / positions > 0.7


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
def test_the_rows_of_an_update_are_as_many_on_any_number_of_cores(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine has of cores says how an update is shared out, not what is in it."""
    config = settings(rows, 1, 128)
    sampler = packed_sampler(config, LENGTHS, short=True)
    examples = [Example(np.arange(n, dtype=np.int32), np.arange(n) >= 2) for n in LENGTHS]
    for cores in (1, 2, 8, 18, 64):
        parts = [part for windows in sampler[3] for part in collate_parts(examples, windows, None, cores)]
        labels = np.concatenate([part.labels[part.weights > 0] for part in parts])
        assert len(labels) == sum(LENGTHS[row] - 2 for row in rows_of(sampler, 3))
    sizes = [len(rows_of(sampler, n)) for n in range(sampler.updates_per_epoch)]
    assert np.mean(sizes[:-1]) == pytest.approx(rows, rel=0.15, abs=1)


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_parts_of_a_micro_batch_hold_each_of_its_rows_once(parts: int) -> None:
    rows = [Example(np.array([1, 10 + i, 2], np.int32), np.array([False, True, True])) for i in range(5)]
    batches = collate_parts(rows, [np.array([0, 1]), np.array([2]), np.array([3, 4])], 8, parts)  # type: ignore[arg-type]
    assert len(batches) == min(parts, 3) and sum(batch.supervised for batch in batches) == 10
    assert sorted(label for batch in batches for label in batch.labels if label > 2) == [10, 11, 12, 13, 14]


# Packing


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.integers(64, 100), st.integers(0, 5))
def test_every_row_is_in_one_window_and_no_window_overflows(sizes: list[int], window: int, seed: int) -> None:
    lengths = np.array(sizes)
    windows = pack(lengths, bins(lengths, window), np.random.default_rng(seed))
    assert sorted(np.concatenate(windows).tolist()) == list(range(len(sizes)))
    assert len(windows) == sum(many for _, many in bins(lengths, window))
    assert all(0 < lengths[rows].sum() <= window for rows in windows)


def test_the_plan_is_a_function_of_the_seed_and_mixes_rows_anew() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    one, same, other = (pack(lengths, bins(lengths, 128), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert [rows.tolist() for rows in one] == [rows.tolist() for rows in same]
    neighbours = [{frozenset(rows.tolist()) for rows in windows} for windows in (one, other)]
    assert len(one) == len(other) and len(neighbours[0] & neighbours[1]) < 0.2 * len(one)


def efficiency(lengths: np.ndarray, window: int) -> float:
    """The share of positions that hold a token."""
    return float(lengths.sum()) / (window * sum(many for _, many in bins(lengths, window)))


def test_best_fit_beats_taking_rows_as_they_come() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    used, left = 0, 0
    for size in lengths:
        if size > left:
            used, left = used + 1, 128
        left -= size
    assert efficiency(lengths, 128) > 0.99 > lengths.sum() / (128 * used)


@pytest.mark.parametrize("least", [0, 512], ids=["short windows", "long windows"])
def test_our_data_fill_at_least_95_percent(least: int) -> None:
    config = Config.of("mini")
    lengths = encode(read_rows(HOME / config.train_data), load_base(Config()).tokenizer, 512).lengths - 1
    window = best_window(lengths, least, 512)
    assert efficiency(lengths, window) >= 0.95
    assert window >= least and window % 8 == 0


def test_a_million_rows_can_be_planned() -> None:  # a plan row by row would take this test minutes
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 1_000_000), 5, 2048).astype(np.int64)
    windows = pack(lengths, bins(lengths, 2048), np.random.default_rng(0))
    assert lengths.sum() / (len(windows) * 2048) > 0.99
