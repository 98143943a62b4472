"""The loss over a whole data set."""

from collections.abc import Callable
from itertools import chain

import mlx.nn as nn

from ..config import Config
from ..data.batches import collate_parts, make_sampler
from ..data.tokens import Encoded
from ..model.cpu.parallel import side_by_side, summed
from .update import arrays, batch_loss


def validation_loss(
    model: nn.Module, data: Encoded, config: Config, give_up: Callable[[], bool] = lambda: False
) -> float | None:
    """Mean loss over every supervised token of `data`, in nats, without dropout; None when `give_up()`, asked
    between batches, said so."""
    model.eval()
    count = side_by_side(model)
    order = make_sampler(config, data.lengths, count)
    batches = [
        collate_parts(data, micro_batch, order.window, count)
        for n in range(order.updates_per_epoch)
        for micro_batch in order[n]
    ]
    total = sum(batch.supervised for batch in chain(*batches))
    loss: float | None = 0.0
    for batch in batches:
        if give_up():
            loss = None
            break
        loss += summed(lambda part: batch_loss(model, *arrays(part, total)), batch).item()
    model.train()
    return loss
