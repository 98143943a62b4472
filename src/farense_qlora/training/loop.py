"""The training loop: `train(...)` yields typed events in the order in which things happen."""

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..config import HOME, Config
from ..data.batches import Batch, MicroBatch, Order, Packed, Unpacked, collate
from ..data.tokens import Encoded, encode_file
from ..errors import UserError
from ..files import whole_folder
from ..model.adapters import attach, save_adapter
from ..model.base import Base
from ..model.checkpointing import use_checkpointing
from ..model.packing import check_packable
from ..model.parallel import parts, side_by_side, summed
from .checkpoints import State, latest, restore, save
from .events import Evaluated, Event, Finished, Saved, Started, Stepped
from .schedule import learning_rate
from .update import Updater, arrays, batch_loss


def train(config: Config, base: Base, run: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train a LoRA adapter on `base` as `config` says, in the folder `run`; goes on from its last checkpoint.

    Yields `Started`, then `Stepped` for each update, `Evaluated` and `Saved` when due, and `Finished`. The
    best adapter by validation loss is kept in `run/best`. `stop()` is asked after every update: when true,
    the state is saved and training ends. Raises `UserError` on data that cannot be trained on.
    """
    training, validation = (
        encode_file(HOME / path, base.tokenizer, base.path, config.max_seq_length)
        for path in (config.train_data, config.val_data)
    )
    if config.batch_size > len(training):
        raise UserError(
            f"batch_size = {config.batch_size} é maior do que os dados de treino ({len(training)} linhas "
            f"em {config.train_data}): reduza o lote"
        )
    if config.packing:
        check_packable(base.model, base.name)
    count = side_by_side(base.model)
    order = make_order(config, training.lengths, count)
    total_steps = max(1, round(config.epochs * order.updates_per_epoch))
    total_steps = min(total_steps, config.max_steps or total_steps)

    model = base.model
    attach(model, config)
    if config.grad_checkpoint:
        use_checkpointing(model)
    update = Updater(model, config)
    checkpoint = latest(run)
    state = restore(checkpoint, model, update.optimizer) if checkpoint else State()

    began = time.perf_counter()
    trainable = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    yield Started(
        state.step,
        time.time(),
        total_steps,
        order.updates_per_epoch,
        len(training),
        len(validation),
        training.truncated,
        trainable,
        base.parameters,
    )
    if state.step == 0:
        yield evaluate(config, base, run, state, validation, epoch=0.0)
    reason = ""
    while not reason:
        start = time.perf_counter()
        rate = learning_rate(config, state.step, total_steps)
        batches = [collated(training, micro_batch, order.window, count) for micro_batch in order[state.step]]
        mx.random.seed(config.seed * 1_000_003 + state.step)  # dropout is a function of (seed, step)
        loss, norm = update(batches, rate)
        state.step += 1
        epoch = state.step / order.updates_per_epoch
        yield Stepped(
            state.step,
            time.time(),
            epoch,
            loss,
            rate,
            norm,
            sum(b.supervised for b in chain(*batches)),
            sum(b.tokens for b in chain(*batches)),
            sum(b.inputs.size for b in chain(*batches)),
            time.perf_counter() - start,
            mx.get_peak_memory() / 1e9,
        )
        if stop():
            reason = "stopped"
        elif state.step == total_steps:
            reason = "completed"
        if reason == "completed" or state.step % config.eval_every == 0:
            yield evaluate(config, base, run, state, validation, epoch)
            if 0 < config.early_stopping_patience <= state.evaluations_since_best:
                reason = "early_stopping"
        if reason or state.step % config.save_every == 0:
            path = save(run, state, config, base.name, model, update.optimizer)
            yield Saved(state.step, time.time(), path)
    seconds = time.perf_counter() - began
    yield Finished(state.step, time.time(), reason, state.best_step, state.best_loss, seconds)


def make_order(config: Config, lengths: np.ndarray, side_by_side: int) -> Order:
    """The updates of rows of `lengths` tokens, packed or not as `config` says, for this device and for
    batches of which so many parts are computed side by side."""
    arguments = (lengths, config.batch_size, config.grad_accumulation_steps, config.seed)
    if not config.packing:
        return Unpacked(*arguments)
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return Packed(*arguments, config.max_seq_length, short=on_cpu, streams=side_by_side)


def collated(data: Encoded, micro_batch: MicroBatch, window: int | None, count: int) -> list[Batch]:
    """The batches of a micro-batch, in `count` parts to compute side by side."""
    on_gpu = mx.default_device().type != mx.DeviceType.cpu
    return [
        collate([[data[row] for row in rows] for rows in windows], window, few_shapes=on_gpu)
        for windows in parts(micro_batch, count)
    ]


def validation_loss(model: nn.Module, data: Encoded, config: Config) -> float:
    """Mean loss over every supervised token of `data`, in nats, without dropout."""
    model.eval()
    count = side_by_side(model)
    order = make_order(config, data.lengths, count)
    batches = [
        collated(data, micro_batch, order.window, count)
        for n in range(order.updates_per_epoch)
        for micro_batch in order[n]
    ]
    total = sum(batch.supervised for batch in chain(*batches))
    loss = sum(
        summed(lambda part: batch_loss(model, *arrays(part, total)), batch).item() for batch in batches
    )
    model.train()
    return loss


def evaluate(
    config: Config, base: Base, run: Path, state: State, validation: Encoded, epoch: float
) -> Evaluated:
    """Measure the validation loss, and keep the adapter in `run/best` when it is the lowest so far."""
    start = time.perf_counter()
    loss = validation_loss(base.model, validation, config)
    best = state.best_loss is None or loss < state.best_loss
    if best:
        state.best_step, state.best_loss, state.evaluations_since_best = state.step, loss, 0
        with whole_folder(run / "best") as folder:
            save_adapter(base.model, config, base.name, folder)
    else:
        state.evaluations_since_best += 1
    return Evaluated(state.step, time.time(), epoch, loss, best, time.perf_counter() - start)
