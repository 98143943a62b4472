"""The training loop: `train(...)` yields typed events in the order in which things happen."""

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import mlx.core as mx

from ..config import Config
from ..errors import UserError
from ..model.base import Base
from . import guards
from .control import Ask, Asked, Wishes
from .events import (
    Discarded,
    Event,
    Finished,
    Paused,
    RateChanged,
    Resumed,
    RolledBack,
    Saved,
    Skipped,
    Spiked,
    Started,
    Stepped,
)
from .schedule import learning_rate
from .session import Session

SECONDS_BETWEEN_LOOKS = 0.2


def train(
    config: Config, base: Base, run: Path, ask: Ask = Wishes, accept_changes: bool = False
) -> Iterator[Event]:
    """Train a LoRA adapter on `base` as `config` says, in the folder `run`; goes on from its last checkpoint.

    Yields `Started`, then `Stepped` (or `Skipped`) for each update, `Evaluated`, `Sampled` and `Saved` when
    due, and `Finished`. The best adapter by validation loss is kept in `run/best`. `ask()` is called after
    every update, and between the batches of an evaluation, for what the user wishes. Raises `UserError` as
    `Session` does, and when no learning rate gives finite numbers.
    """
    session, asked = Session(config, base, run, accept_changes), Asked(ask)
    began = time.perf_counter()
    yield _started(session)
    for damaged, damage in session.damaged:
        yield Discarded(session.state.step, time.time(), str(damaged.relative_to(run)), damage)
    if session.checkpoint:
        yield Saved(session.state.step, time.time(), str(session.checkpoint.relative_to(run)))
    if session.due:
        yield from session.evaluate(asked)
    if not session.checkpoint:
        yield from session.save(asked)
    reason = "stopped" if session.due else session.end
    while not reason:
        start, state = time.perf_counter(), session.state
        rate = learning_rate(config, state.learning_rate, state.step, session.total_steps)
        batches = session.batches(state.step)
        mx.random.seed(config.seed * 1_000_003 + state.step)  # dropout is a function of (seed, step)
        loss, norm = session.update(batches, rate)
        state.step += 1
        epoch = state.step / session.order.updates_per_epoch
        if cause := guards.cause(loss, norm):
            rows = session.rows(state.step - 1)
            yield Skipped(state.step, time.time(), epoch, cause, rows)
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row == guards.SKIPS_UNTIL_ROLLBACK:
                if state.rollbacks == guards.ROLLBACKS:
                    raise UserError(guards.diagnosis(cause, rows, state.learning_rate))
                path = session.roll_back()
                yield RolledBack(session.state.step, time.time(), path, session.state.learning_rate)
                continue
        else:
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
            if loss > (bound := guards.spike_bound(state.losses)):
                yield Spiked(state.step, time.time(), loss, bound)
            state.losses = [*state.losses, loss][-guards.MOST :]
            state.skipped_in_a_row = 0

        if session.due:
            yield from session.evaluate(asked)
        reason = "stopped" if session.due else session.end  # still due: given up for a stop
        wish = asked()
        if wish.pause and not reason:
            yield from session.save(asked)
            yield Paused(state.step, time.time(), "asked")
            while (wish := asked()).pause and not wish.stop:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield Resumed(state.step, time.time())
        if wish.learning_rate:
            state.learning_rate = wish.learning_rate
            yield RateChanged(state.step, time.time(), state.learning_rate)
        reason = reason or ("stopped" if wish.stop else "")
        if reason or wish.save or wish.learning_rate or state.step % config.save_every == 0:
            yield from session.save(asked)
    seconds, state = time.perf_counter() - began, session.state
    yield Finished(state.step, time.time(), reason, state.best_step, state.best_loss, seconds)


def _started(session: Session) -> Started:
    return Started(
        session.state.step,
        time.time(),
        session.total_steps,
        session.order.updates_per_epoch,
        len(session.data.training),
        len(session.data.validation),
        session.data.training.truncated,
        session.trainable,
        session.base.parameters,
        len(session.data.repeats) + len(session.data.leaks),
        tuple(session.data.sentences(session.config)),
        session.config.from_adapter,
    )
