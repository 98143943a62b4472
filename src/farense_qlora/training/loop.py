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
        yield Discarded(
            step=session.state.step, time=time.time(), path=str(damaged.relative_to(run)), reason=damage
        )
    if session.checkpoint:
        yield Saved(step=session.state.step, time=time.time(), path=str(session.checkpoint.relative_to(run)))
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
            yield Skipped(step=state.step, time=time.time(), epoch=epoch, cause=cause, rows=rows)
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row == guards.SKIPS_UNTIL_ROLLBACK:
                if state.rollbacks == guards.ROLLBACKS:
                    raise UserError(guards.diagnosis(cause, rows, state.learning_rate))
                path = session.roll_back()
                yield RolledBack(
                    step=session.state.step,
                    time=time.time(),
                    path=path,
                    learning_rate=session.state.learning_rate,
                )
                continue
        else:
            yield Stepped(
                step=state.step,
                time=time.time(),
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                grad_norm=norm,
                supervised_tokens=sum(b.supervised for b in chain(*batches)),
                tokens=sum(b.tokens for b in chain(*batches)),
                positions=sum(b.inputs.size for b in chain(*batches)),
                seconds=time.perf_counter() - start,
                peak_memory_gb=mx.get_peak_memory() / 1e9,
            )
            if loss > (bound := guards.spike_bound(state.losses)):
                yield Spiked(step=state.step, time=time.time(), loss=loss, bound=bound)
            state.losses = [*state.losses, loss][-guards.MOST :]
            state.skipped_in_a_row = 0

        if session.due:
            yield from session.evaluate(asked)
        reason = "stopped" if session.due else session.end  # still due: given up for a stop
        wish = asked()
        if wish.pause and not reason:
            yield from session.save(asked)
            yield Paused(step=state.step, time=time.time(), cause="asked")
            while (wish := asked()).pause and not wish.stop:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield Resumed(step=state.step, time=time.time())
        if wish.learning_rate:
            state.learning_rate = wish.learning_rate
            yield RateChanged(step=state.step, time=time.time(), learning_rate=state.learning_rate)
        reason = reason or ("stopped" if wish.stop else "")
        if reason or wish.save or wish.learning_rate or state.step % config.save_every == 0:
            yield from session.save(asked)
    seconds, state = time.perf_counter() - began, session.state
    yield Finished(
        step=state.step,
        time=time.time(),
        reason=reason,
        best_step=state.best_step,
        best_loss=state.best_loss,
        seconds=seconds,
    )


def _started(session: Session) -> Started:
    return Started(
        step=session.state.step,
        time=time.time(),
        total_steps=session.total_steps,
        steps_per_epoch=session.order.updates_per_epoch,
        train_rows=len(session.data.training),
        val_rows=len(session.data.validation),
        truncated_rows=session.data.training.truncated,
        trainable_parameters=session.trainable,
        total_parameters=session.base.parameters,
        repeated_rows=len(session.data.repeats) + len(session.data.leaks),
        notes=tuple(session.data.sentences(session.config)),
        from_adapter=session.config.from_adapter,
    )
