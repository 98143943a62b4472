"""How sure a figure is: bootstrap intervals over questions, alone or paired, the same for the same seed."""

import numpy as np
import numpy.typing as npt

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
