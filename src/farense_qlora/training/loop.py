"""The training loop: `train(...)` yields typed events in the order in which things happen."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map

from ..config import HOME, Config
from ..data.batches import Batch, MicroBatch, Order, Packed, Unpacked, collate
from ..data.rows import read_rows
from ..data.tokens import Encoded, encode
from ..errors import UserError
from ..files import whole_folder
from ..model.adapters import attach, save_adapter
from ..model.base import Base
from ..model.checkpointing import use_checkpointing
from ..model.head import head_loss
from ..model.packing import check_packable, hidden_states
from ..model.parallel import parts, streams, summed
from .checkpoints import State, latest, restore, save
from .events import Evaluated, Event, Finished, Saved, Started, Stepped
from .schedule import learning_rate


def train(config: Config, base: Base, run: Path, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Train a LoRA adapter on `base` as `config` says, in the folder `run`; goes on from its last checkpoint.

    Yields `Started`, then `Stepped` for each update, `Evaluated` and `Saved` when due, and `Finished`. The
    best adapter by validation loss is kept in `run/best`. `stop()` is asked after every update: when true,
    the state is saved and training ends. Raises `UserError` on data that cannot be trained on.
    """
    train_rows, val_rows = read_rows(HOME / config.train_data), read_rows(HOME / config.val_data)
    if config.batch_size > len(train_rows):
        raise UserError(
            f"batch_size = {config.batch_size} é maior do que os dados de treino ({len(train_rows)} linhas "
            f"em {config.train_data}): reduza o lote"
        )
    if config.packing:
        check_packable(base.model, base.name)
    training = encode(train_rows, base.tokenizer, config.max_seq_length)
    validation = encode(val_rows, base.tokenizer, config.max_seq_length)
    order = make_order(config, training.lengths)
    total_steps = max(1, round(config.epochs * order.updates_per_epoch))
    total_steps = min(total_steps, config.max_steps or total_steps)

    model = base.model
    attach(model, config)
    if config.grad_checkpoint:
        use_checkpointing(model)
    optimizer = make_optimizer(config, model)
    checkpoint = latest(run)
    state = restore(checkpoint, model, optimizer) if checkpoint else State()

    began = time.perf_counter()
    trainable = sum(array.size for _, array in tree_flatten(model.trainable_parameters()))
    yield Started(
        state.step,
        time.time(),
        total_steps,
        order.updates_per_epoch,
        len(train_rows),
        len(val_rows),
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
        batches = [collated(training, micro_batch, order.window) for micro_batch in order[state.step]]
        mx.random.seed(config.seed * 1_000_003 + state.step)  # dropout is a function of (seed, step)
        loss, norm = update(model, optimizer, batches, rate, config)
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
            path = save(run, state, config, base.name, model, optimizer)
            yield Saved(state.step, time.time(), path)
    seconds = time.perf_counter() - began
    yield Finished(state.step, time.time(), reason, state.best_step, state.best_loss, seconds)


def make_order(config: Config, lengths: np.ndarray) -> Order:
    """The updates of rows of `lengths` tokens, packed or not as `config` says, for this device."""
    arguments = (lengths, config.batch_size, config.grad_accumulation_steps, config.seed)
    if not config.packing:
        return Unpacked(*arguments)
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return Packed(*arguments, config.max_seq_length, short=on_cpu, streams=len(streams()))


def collated(data: Encoded, micro_batch: MicroBatch, window: int | None) -> list[Batch]:
    """The batches of a micro-batch, one for each stream of this device."""
    return [
        collate([[data.examples[row] for row in rows] for rows in windows], window)
        for windows in parts(micro_batch)
    ]


def make_optimizer(config: Config, model: nn.Module) -> optim.MultiOptimizer:
    """AdamW for A and for B apart: in LoRA+ (Hayou et al., 2024) B learns `lora_plus_ratio` times faster."""
    a, b = (optim.AdamW(config.learning_rate, weight_decay=config.weight_decay) for _ in "ab")
    optimizer = optim.MultiOptimizer([a, b], [lambda name, _: name.endswith("lora_a")])
    optimizer.init(model.trainable_parameters())
    return optimizer


def update(
    model: nn.Module,
    optimizer: optim.MultiOptimizer,
    batches: Sequence[Sequence[Batch]],
    rate: float,
    config: Config,
) -> tuple[float, float]:
    """One update on micro-batches, each in parts for the cores of a CPU.

    Returns the mean loss over all supervised tokens (nats) and the norm of its gradient before clipping.
    """
    total = sum(batch.supervised for batch in chain(*batches))
    loss_and_gradients = nn.value_and_grad(model, batch_loss)
    loss, gradients = 0.0, None
    for micro_batch in batches:
        part, slopes = summed(lambda batch: loss_and_gradients(model, batch, total), micro_batch)
        loss += part.item()
        gradients = slopes if gradients is None else tree_map(mx.add, gradients, slopes)
    norm = mx.sqrt(sum(array.square().sum() for _, array in tree_flatten(gradients)))
    if config.max_grad_norm:
        shrink = mx.minimum(1.0, config.max_grad_norm / (norm + 1e-6))
        gradients = tree_map(lambda array: array * shrink, gradients)
    for part, ratio in zip(optimizer.optimizers, (1.0, config.lora_plus_ratio), strict=True):
        part.learning_rate = rate * ratio
    optimizer.update(model, gradients)
    mx.eval(model.trainable_parameters(), optimizer.state)
    return loss, norm.item()  # type: ignore[return-value]


def batch_loss(model: nn.Module, batch: Batch, total: int) -> mx.array:
    """The cross-entropies of the supervised positions of `batch`, summed and divided by `total`."""
    segments = None if batch.segments is None else mx.array(batch.segments)
    hidden = hidden_states(model, mx.array(batch.inputs), segments)
    hidden = hidden.reshape(-1, hidden.shape[-1])[mx.array(batch.positions)]
    return head_loss(model)(hidden, mx.array(batch.labels), mx.array(batch.weights / total))


def validation_loss(model: nn.Module, data: Encoded, config: Config) -> float:
    """Mean loss over every supervised token of `data`, in nats, without dropout."""
    model.eval()
    order = make_order(config, data.lengths)
    batches = [
        collated(data, micro_batch, order.window)
        for n in range(order.updates_per_epoch)
        for micro_batch in order[n]
    ]
    total = sum(batch.supervised for batch in chain(*batches))
    loss = sum(summed(lambda batch: batch_loss(model, batch, total), batch).item() for batch in batches)
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
