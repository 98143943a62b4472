"""The training loop: `train(...)` yields typed events in the order in which things happen."""

import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..config import Config
from ..data.batches import Batch, collate_parts, halved, make_sampler
from ..data.load import Data, write_left_out
from ..errors import DiskFullError, UserError
from ..model.adapters import attach
from ..model.base import Base
from ..model.checkpointing import use_checkpointing
from ..model.cpu.parallel import side_by_side
from ..model.from_adapter import start_from
from ..model.machine import on_cpu, peak_memory
from ..model.packed import check_packable
from . import anomalies, checkpoints, events, saving
from .cost import estimate
from .events import Event
from .probes import Probes
from .requests import Requests
from .run import adapter_folder
from .step import Step, learning_rate, validation_loss

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_TRIES_TO_SAVE = 2.0
T = TypeVar("T")


def train(
    config: Config,
    base: Base,
    data: Data,
    folder: Path,
    requests: Callable[[], Requests] = Requests,
    accept_changes: bool = False,
    stops: Callable[[], int] = lambda: 0,
    splits: int = 0,
) -> Iterator[Event]:
    """Train a LoRA adapter on `base` and `data` as `config` says, in the run folder `folder`; goes on from
    the last checkpoint there.

    Yields `Started`, then `Stepped` (or `Skipped`) for each update, `Evaluated`, `Sampled` and `Saved` when
    due, and `Finished`. The adapter with the lowest validation loss is kept in `folder/best`. After every
    update `requests()` says what the user asks for; between the batches of an evaluation, and while the disk
    is full, `stops()` says how often a stop was asked for. A stopped run is saved first and then evaluated,
    unless it was asked for twice. Each micro-batch is halved `splits` times, which takes less memory and
    gives the same updates to rounding. Raises `UserError` as `Trainer` does, and when no learning
    rate gives finite numbers.

    >>> [type(event).__name__ for event in fq.train(
    ...     config.changed(max_steps=1, probes=0), fq.load_base(config), data, folder / "run")]
    ['Started', 'Evaluated', 'Saved', 'Stepped', 'Evaluated', 'Saved', 'Finished']
    """
    trainer = Trainer(config, base, data, folder, accept_changes, stops, splits)
    began = time.perf_counter()
    yield trainer.started()
    for damaged, reason in trainer.damaged:
        yield events.Discarded(step=trainer.state.step, path=str(damaged.relative_to(folder)), reason=reason)
    if trainer.checkpoint:
        yield events.Saved(step=trainer.state.step, path=str(trainer.checkpoint.relative_to(folder)))
    ended = yield from trainer.evaluate_if_due()
    if not trainer.checkpoint:
        yield from trainer.save()
    while not ended:
        start, state = time.perf_counter(), trainer.state
        rate = learning_rate(config, state.learning_rate, state.step, trainer.total_steps)
        batches = trainer.batches(state.step)
        mx.random.seed(config.seed * 1_000_003 + state.step)  # dropout is a function of (seed, step)
        loss, grad_norm = trainer.step(batches, rate)
        state.step += 1
        epoch = state.step / trainer.sampler.updates_per_epoch
        if cause := anomalies.not_finite(loss, grad_norm):
            rows = trainer.rows(state.step - 1)
            yield events.Skipped(step=state.step, epoch=epoch, cause=cause, rows=rows)
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row == anomalies.SKIPS_UNTIL_ROLLBACK:
                if state.rollbacks == anomalies.ROLLBACKS:
                    raise UserError(anomalies.diagnosis(cause, rows, state.learning_rate))
                yield trainer.roll_back()
                continue
        else:
            yield events.Stepped(
                step=state.step,
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                grad_norm=grad_norm,
                supervised_tokens=sum(batch.supervised for batch in chain(*batches)),
                tokens=sum(batch.tokens for batch in chain(*batches)),
                positions=sum(batch.inputs.size for batch in chain(*batches)),
                seconds=time.perf_counter() - start,
                peak_memory_gb=peak_memory() / 1e9,
            )
            if loss > (bound := anomalies.spike_bound(state.losses)):
                yield events.Spiked(step=state.step, loss=loss, bound=bound)
            state.losses = [*state.losses, loss][-anomalies.MOST :]
            state.skipped_in_a_row = 0

        ended = yield from trainer.evaluate_if_due()
        asked = requests()
        if asked.pause and not ended:
            yield from trainer.save()
            yield events.Paused(step=state.step, cause="asked")
            while (asked := requests()).pause and not asked.stop:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield events.Resumed(step=state.step)
        if asked.learning_rate:
            state.learning_rate = asked.learning_rate
            yield events.RateChanged(step=state.step, learning_rate=state.learning_rate)
        if asked.stop and not ended:
            ended = "stopped"
        if ended or asked.save or asked.learning_rate or state.step % config.save_every == 0:
            yield from trainer.save()
    if ended == "stopped":
        yield from trainer.evaluate_at_stop()
    state = trainer.state
    yield events.Finished(
        step=state.step,
        reason=ended,
        best_step=state.best_step,
        best_loss=state.best_loss,
        seconds=time.perf_counter() - began,
    )


class Trainer:
    """A run in progress: its optimizer `step`, the rows of each update in `sampler`, how many updates there
    are in all (`total_steps`), and the `state` that it has come to.

    Goes on from the last whole `checkpoint` in `folder`; `damaged` lists newer ones, each with what is wrong.
    Without any it begins with a fresh adapter, or with the weights of the one that the config names. Raises
    `UserError` on data that are too few, on an adapter that one cannot go on from, when there is no room to
    save, and on a run that began with another config or other data, unless `accept_changes`.
    """

    def __init__(
        self,
        config: Config,
        base: Base,
        data: Data,
        folder: Path,
        accept_changes: bool = False,
        stops: Callable[[], int] = lambda: 0,
        splits: int = 0,
    ):
        self.config, self.base, self.data, self.folder = config, base, data, folder
        self._stops, self._splits = stops, splits
        folder.mkdir(parents=True, exist_ok=True)
        checkpoints.tidy(folder)
        self._fingerprints = checkpoints.fingerprints(config)
        if config.batch_size > len(data.training):
            raise UserError(
                f"batch_size = {config.batch_size} é maior do que os dados de treino "
                f"({len(data.training)} linhas em {config.train_data}): reduza o lote"
            )
        write_left_out(config, data, folder)
        if config.packing:
            check_packable(base.model, base.name)
        self._parts = side_by_side(base.model)
        self.sampler = make_sampler(config, data.training.lengths)
        steps = max(1, round(config.epochs * self.sampler.updates_per_epoch))
        self.total_steps = min(steps, config.max_steps or steps)
        validation = data.validation.rows() if config.probes else []
        asked = [row.in_style(config.answer_style) for _, row in validation]
        self._probes = Probes(asked, base.tokenizer, config.probes)

        attach(base.model, config)
        if config.grad_checkpoint:
            use_checkpointing(base.model)
        self.step = Step(base.model, config)
        self.trainable = sum(array.size for _, array in tree_flatten(base.model.trainable_parameters()))
        self.damaged: list[tuple[Path, str]] = []
        self.checkpoint = checkpoints.latest(folder, lambda *damage: self.damaged.append(damage))
        self.state = self._resumed(self.checkpoint, accept_changes) if self.checkpoint else self._begun()

    def _begun(self) -> saving.State:
        if self.config.from_adapter:
            start_from(self.base.model, self.config, adapter_folder(self.config.from_adapter))
        saving.check_room(self.folder, self.config, self.trainable)
        return saving.State(learning_rate=self.config.learning_rate)

    def _resumed(self, checkpoint: Path, accept_changes: bool) -> saving.State:
        changed = checkpoints.changes(checkpoint, self.config, self._fingerprints)
        if changed and not accept_changes:
            raise UserError(
                f"o treino em {self.folder} começou com outras definições ou outros dados "
                f"({'; '.join(changed)}): volte a eles, escolha outro nome, ou aceite a mudança com "
                "--accept-changes"
            )
        return saving.restore(checkpoint, self.step)

    def started(self) -> events.Started:
        """What is about to be trained."""
        cost = estimate(self.config, on_cpu())
        return events.Started(
            step=self.state.step,
            total_steps=self.total_steps,
            steps_per_epoch=self.sampler.updates_per_epoch,
            train_rows=len(self.data.training),
            val_rows=len(self.data.validation),
            truncated_rows=self.data.training.truncated,
            trainable_parameters=self.trainable,
            total_parameters=self.base.parameters,
            repeated_rows=len(self.data.repeats) + len(self.data.leaks),
            notes=tuple(self.data.sentences),
            from_adapter=self.config.from_adapter,
            elsewhere=saving.elsewhere(self.checkpoint) if self.checkpoint else "",
            predicted_gb=cost.peak_gb,
            predicted_seconds=cost.seconds / cost.updates if cost.seconds and cost.updates else None,
        )

    def batches(self, n: int) -> list[list[Batch]]:
        """The micro-batches of update `n` (0 is the first), each in parts to compute side by side."""
        micro_batches, window = self.sampler[n], self.sampler.window
        for _ in range(self._splits):
            micro_batches, window = halved(micro_batches), None
        return [collate_parts(self.data.training, one, window, self._parts) for one in micro_batches]

    def rows(self, n: int) -> tuple[str, ...]:
        """The rows in update `n`, as "file:line"."""
        rows = np.sort(np.concatenate(list(chain(*self.sampler[n]))))
        return tuple(f"{self.config.train_data}:{self.data.training.lines[row]}" for row in rows)

    def evaluate_if_due(self) -> Generator[Event, None, str]:
        """Evaluate when it is time to, and return why training is over, as in `Finished`: "" while it is not,
        "stopped" when the evaluation was cut short for that; it is then still due when training goes on."""
        state = self.state
        if state.evaluated != state.step and self._is_due():
            yield from self._evaluate(lambda: self._stops() > 0)
            if state.evaluated != state.step:
                return "stopped"
        if 0 < self.config.early_stopping_patience <= state.evaluations_since_best:
            return "early_stopping"
        return "completed" if state.step >= self.total_steps else ""

    def evaluate_at_stop(self) -> Iterator[Event]:
        """Evaluate an adapter that was saved and never evaluated, so that it can be the best, and save that
        too; not one that learnt nothing, nor when a stop was asked for twice."""
        state = self.state
        if state.step and state.evaluated != state.step:
            yield from self._evaluate(lambda: self._stops() > 1)
            if state.evaluated == state.step:
                yield from self.save()

    def _is_due(self) -> bool:
        """Whether the plan has an evaluation after this update."""
        return self.state.step >= self.total_steps or self.state.step % self.config.eval_every == 0

    def _evaluate(self, cut: Callable[[], bool]) -> Iterator[Event]:
        """Keep the adapter if its validation loss is the lowest so far, and ask the probes; nothing of that
        when the evaluation is `cut` short."""
        state, model, start = self.state, self.base.model, time.perf_counter()
        loss = validation_loss(model, self.data.validation, self.config, cut)
        if loss is None:
            return
        state.evaluated = state.step
        # An adapter that learnt nothing is no result, even where learning made the validation worse.
        best = state.best_loss is None or state.best_step == 0 or loss < state.best_loss
        if best:
            state.best_step, state.best_loss = state.step, loss
            yield from self._when_there_is_room(
                lambda: saving.save_best(self.folder, self.config, self.base.name, model, state)
            )
        if self._is_due() and state.step:  # early stopping is as if the run had never been stopped
            lower = state.lowest is None or loss < state.lowest
            state.lowest = loss if lower else state.lowest
            state.evaluations_since_best = 0 if lower else state.evaluations_since_best + 1
        epoch, seconds = state.step / self.sampler.updates_per_epoch, time.perf_counter() - start
        yield events.Evaluated(step=state.step, epoch=epoch, loss=loss, best=best, seconds=seconds)
        if self._is_due() and (questions := self._probes.questions):
            expected, answers = self._probes.expected, self._probes.answers(model)
            yield events.Sampled(step=state.step, questions=questions, expected=expected, answers=answers)

    def save(self) -> Iterator[Event]:
        """Write a checkpoint."""
        path = yield from self._when_there_is_room(
            lambda: saving.save(
                self.folder, self.state, self.config, self._fingerprints, self.base.name, self.step
            )
        )
        yield events.Saved(step=self.state.step, path=path)

    def _when_there_is_room(self, write: Callable[[], T]) -> Generator[Event, None, T]:
        """What `write` returns, tried again while the disk is full; raises its `DiskFullError` when a stop is
        asked for meanwhile."""
        waiting = False
        while True:
            try:
                written = write()
                break
            except DiskFullError as error:
                if self._stops():
                    raise
                if not waiting:
                    yield events.Paused(step=self.state.step, cause=str(error))
                waiting = True
                time.sleep(SECONDS_BETWEEN_TRIES_TO_SAVE)
        if waiting:
            yield events.Resumed(step=self.state.step)
        return written

    def roll_back(self) -> events.RolledBack:
        """Back to the last checkpoint, with half the learning rate; raises `UserError` when none is whole."""
        checkpoint = checkpoints.latest(self.folder)
        if checkpoint is None:
            raise UserError(f"já não há nenhum ponto de controlo inteiro em {self.folder}")
        before = self.state
        self.state = saving.restore(checkpoint, self.step)
        self.state.learning_rate, self.state.rollbacks = before.learning_rate / 2, before.rollbacks + 1
        path = str(checkpoint.relative_to(self.folder))
        return events.RolledBack(step=self.state.step, path=path, learning_rate=self.state.learning_rate)
