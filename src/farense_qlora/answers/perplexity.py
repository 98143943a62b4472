"""How well a model predicts the true answers: perplexity and token accuracy, with intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..data.batches import Batch, collate
from ..data.tokens import Encoded
from ..model.base import Base
from ..model.cpu.parallel import each, side_by_side
from ..model.decode import inference
from ..model.loss import token_losses
from ..model.packed import hidden_states
from ..text import Said, decimal
from .intervals import Interval, mean_interval, with_interval

ROWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True, repr=False)
class TokenScores(Said):
    """How a model predicts the `tokens` of true answers, given all before each: perplexity (the exponential
    of the mean loss) and the share of tokens that it ranks first, with 95 % intervals over the rows.

    `row_losses` (nats) and `row_tokens` are the sums of each row, for paired comparisons.
    """

    tokens: int
    perplexity: float
    accuracy: float
    perplexity_interval: Interval
    accuracy_interval: Interval
    row_losses: tuple[float, ...]
    row_tokens: tuple[int, ...]

    def __repr__(self) -> str:
        return (
            f"validação, {self.tokens} tokens: perplexidade {self.perplexity_text()}, "
            f"tokens certos {with_interval(self.accuracy, self.accuracy_interval)}"
        )

    def perplexity_text(self) -> str:
        """«1,25 [1,20; 1,30]»"""
        low, high = (decimal(bound, 2) for bound in self.perplexity_interval)
        return f"{decimal(self.perplexity, 2)} [{low}; {high}]"


def token_scores(base: Base, rows: Encoded) -> TokenScores:
    """Let `base` predict every supervised token of `rows`, cut as in training: the perplexity is the
    exponential of the loss that training measures."""
    losses, hits, _, counts = row_scores(base, rows)
    low, high = mean_interval(losses, counts)
    return TokenScores(
        tokens=int(counts.sum()),
        perplexity=math.exp(losses.sum() / counts.sum()),
        accuracy=float(hits.sum() / counts.sum()),
        perplexity_interval=(math.exp(low), math.exp(high)),
        accuracy_interval=mean_interval(hits, counts),
        row_losses=tuple(map(float, losses)),
        row_tokens=tuple(map(int, counts)),
    )


def row_scores(
    base: Base, rows: Encoded, progress: Callable[[int], object] = lambda _: None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each of `rows` (rows,), over its supervised tokens: their loss in nats, how many of them `base`
    ranks first, by how many nats they are behind those that it does, and how many there are. `progress` is
    told how many rows more were measured."""
    losses, hits, behinds, counts = (np.zeros(len(rows)) for _ in range(4))
    order = np.argsort(-rows.lengths, kind="stable")
    at_once = side_by_side(base.model)
    some = [order[start : start + ROWS_AT_ONCE] for start in range(0, len(order), ROWS_AT_ONCE)]

    def predict(batch: Batch) -> tuple[mx.array, mx.array]:
        hidden = hidden_states(base.model, mx.array(batch.inputs), None)
        hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
        return token_losses(base.model, hidden, mx.array(batch.labels))

    with inference(base.model):
        for start in range(0, len(some), at_once):
            together = some[start : start + at_once]
            batches = [collate([[rows[row]] for row in one]) for one in together]
            predicted = each(predict, batches)
            for numbers, batch, (loss, behind) in zip(together, batches, predicted, strict=True):
                owner = numbers[batch.positions // batch.inputs.shape[1]]
                np.add.at(losses, owner, batch.weights * np.array(loss))
                np.add.at(hits, owner, batch.weights * (np.array(behind) == 0))
                np.add.at(behinds, owner, batch.weights * np.array(behind))
                np.add.at(counts, owner, batch.weights)
                progress(len(numbers))
    return losses, hits, behinds, counts
