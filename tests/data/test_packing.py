"""Packing loses no row, fills its windows, and is a function of the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farense_qlora.config import HOME, Config
from farense_qlora.data.packing import best_window, fill, pack, patterns
from farense_qlora.data.tokens import encode, read_rows
from farense_qlora.model.base import load_base


@given(st.lists(st.integers(1, 64), min_size=1, max_size=300), st.integers(64, 100), st.integers(0, 5))
def test_every_row_is_in_one_window_and_no_window_overflows(sizes: list[int], window: int, seed: int) -> None:
    lengths = np.array(sizes)
    windows = pack(lengths, window, np.random.default_rng(seed))
    assert sorted(windows.rows.tolist()) == list(range(len(sizes)))
    assert len(windows) == sum(many for _, many in patterns(lengths, window))
    assert all(0 < lengths[windows[i]].sum() <= window for i in range(len(windows)))


def test_the_plan_is_a_function_of_the_seed_and_mixes_rows_anew() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    one, same, other = (pack(lengths, 128, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.rows, same.rows) and np.array_equal(one.offsets, same.offsets)
    neighbours = [{frozenset(w[i].tolist()) for i in range(len(w))} for w in (one, other)]
    assert len(one) == len(other) and len(neighbours[0] & neighbours[1]) < 0.2 * len(one)


def test_best_fit_beats_taking_rows_as_they_come() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    used, left = 0, 0
    for size in lengths:
        if size > left:
            used, left = used + 1, 128
        left -= size
    assert fill(lengths, 128) > 0.99 > lengths.sum() / (128 * used)


@pytest.mark.parametrize("least", [0, 512], ids=["short windows", "long windows"])
def test_our_data_fill_at_least_95_percent(least: int) -> None:
    config = Config.of("mini")
    lengths = encode(read_rows(HOME / config.train_data), load_base(Config()).tokenizer, 512).lengths - 1
    window = best_window(lengths, least, 512)
    assert fill(lengths, window) >= 0.95
    assert window >= least and window % 8 == 0


def test_a_million_rows_can_be_planned() -> None:  # a plan row by row would take this test minutes
    lengths = np.clip(np.random.default_rng(0).lognormal(4.5, 0.8, 1_000_000), 5, 2048).astype(np.int64)
    windows = pack(lengths, 2048, np.random.default_rng(0))
    assert lengths.sum() / (len(windows) * 2048) > 0.99
