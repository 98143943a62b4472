"""How sure a measure is: 95 % intervals of means and shares."""

import math

import numpy as np
import numpy.typing as npt

from ..text import decimal, percent

RESAMPLES = 2000
LEVEL = 0.95

Interval = tuple[float, float]


def mean_interval(values: npt.ArrayLike, weights: npt.ArrayLike | None = None, seed: int = 0) -> Interval:
    """The percentile bootstrap interval (Efron, 1979), at 95 %, of sum(values) / sum(weights) over items (N,)
    drawn anew; weights of None are ones.

    Two systems on the same items are compared through the differences of their values: the pairs stay
    together, and what makes an item hard for both falls away.
    """
    items = np.asarray(values, float)
    count = len(items)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    ones = np.ones(count) if weights is None else np.asarray(weights, float)
    means = (draws @ items) / (draws @ ones)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_interval(share: float, count: int) -> Interval:
    """The interval of Wilson (1927), at 95 %, for a `share` of `count` items, or for the mean of as many
    values from 0 to 1, which vary no more. Unlike a bootstrap's it is wide where all are right, or none."""
    z2 = 1.96**2 / count
    centre = (share + z2 / 2) / (1 + z2)
    reach = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def with_interval(share: float, interval: Interval) -> str:
    """«62,5 % [58,1; 66,9]»"""
    low, high = (decimal(100 * bound, 1) for bound in interval)
    return f"{percent(share)} [{low}; {high}]"
