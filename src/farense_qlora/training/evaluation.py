"""How a data set becomes batches, and the loss over a whole one."""

from collections.abc import Callable
from itertools import chain

import mlx.nn as nn
import numpy as np

from ..config import Config
from ..data.batches import Batch, MicroBatch, Order, Packed, Unpacked, collate
from ..data.tokens import Encoded
from ..model.cpu.parallel import parts, side_by_side, summed
from ..model.machine import on_cpu
from .update import arrays, batch_loss


def make_order(config: Config, lengths: np.ndarray, side_by_side: int) -> Order:
    """The updates of rows of `lengths` (rows,) tokens, packed or not as `config` says, for this device and
    for batches of which so many parts are computed side by side."""
    arguments = (lengths, config.batch_size, config.grad_accumulation_steps, config.seed)
    if not config.packing:
        return Unpacked(*arguments)
    return Packed(*arguments, config.max_seq_length, short=on_cpu(), streams=side_by_side)


def collated(data: Encoded, micro_batch: MicroBatch, window: int | None, count: int) -> list[Batch]:
    """The batches of a micro-batch, in `count` parts to compute side by side."""
    return [
        collate([[data[row] for row in rows] for rows in windows], window, few_shapes=not on_cpu())
        for windows in parts(micro_batch, count)
    ]


def validation_loss(
    model: nn.Module, data: Encoded, config: Config, give_up: Callable[[], bool] = lambda: False
) -> float | None:
    """Mean loss over every supervised token of `data`, in nats, without dropout; None when `give_up()`, asked
    between batches, said so."""
    model.eval()
    count = side_by_side(model)
    order = make_order(config, data.lengths, count)
    batches = [
        collated(data, micro_batch, order.window, count)
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
