"""The learning rate as a pure function of the update: linear warm-up, then cosine, linear or no decay."""

import math

from ..config import Config


def learning_rate(config: Config, peak: float, step: int, total_steps: int) -> float:
    """The rate of update `step` (0 is the first) of `total_steps`, which reaches `peak` after the warm-up;
    cosine: Loshchilov & Hutter (2017)."""
    warmup = round(config.warmup_ratio * total_steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.lr_schedule == "constant":
        return peak
    done = (step - warmup) / max(1, total_steps - warmup)
    share = (1 + math.cos(math.pi * done)) / 2 if config.lr_schedule == "cosine" else 1 - done
    return peak * share
