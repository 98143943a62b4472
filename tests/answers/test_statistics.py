"""Bootstrap intervals cover the truth as often as they say, and are the same each time."""

import numpy as np
import pytest

from farense_qlora.answers.statistics import mean_interval


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        low, high = mean_interval(random.random(80) < 0.3, seed=trial)
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(2).normal(5, 2, 400)
    margin = 1.96 * values.std() / 20
    assert mean_interval(values) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.03)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(50.0)
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3) != mean_interval(values, seed=4)


def test_weights_make_a_ratio_of_sums() -> None:
    low, high = mean_interval([2.0, 20.0, 200.0], weights=[1.0, 10.0, 100.0])
    assert (low, high) == (2.0, 2.0)  # each item has the ratio 2: so has every resample


def test_pairing_sees_what_two_separate_intervals_cannot() -> None:
    hard = np.random.default_rng(4).normal(0, 10, 100)  # how hard each question is, for both
    better = hard + 1 + np.random.default_rng(5).normal(0, 0.5, 100)
    (low, high), other = mean_interval(better), mean_interval(hard)
    assert low < other[1] and other[0] < high
    assert mean_interval(better - hard)[0] > 0
