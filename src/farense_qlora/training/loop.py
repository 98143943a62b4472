"""The training loop: `train(...)` yields typed events in the order in which things happen."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..config import Config
from ..data.batches import Batch, collate_parts, halved, make_sampler
from ..data.load import Data, write_left_out
from ..errors import DiskFullError, UserError
from ..files import verify
from ..model.adapters import attach
from ..model.base import Base
from ..model.checkpointing import use_checkpointing
from ..model.cpu.parallel import side_by_side
from ..model.from_adapter import start_from
from ..model.machine import on_cpu, peak_memory
from ..model.packed import check_packable
from . import checkpoints, events, ranks, saving
from .cost import estimate
from .events import Event
from .probes import Probes
from .requests import Requests
from .run import adapter_folder
from .step import LOSSES, Step, learning_rate, not_finite, spike_bound, validation_loss

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_TRIES_TO_SAVE = 2.0
# Skipped updates in a row until training goes back to the last checkpoint, and how often it may go back.
SKIPS_UNTIL_ROLLBACK, ROLLBACKS = 3, 3


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
    update `requests()` says what the user asks for, and `stops()` how often to stop; it is asked too between
    the batches of an evaluation, and while the disk is full. A stopped run is saved first and then evaluated,
    unless it was asked for twice. Each micro-batch is halved `splits` times, which takes less memory and
    gives the same updates to rounding. Of processes that train together each calls this with the same data;
    the first alone writes to the folder, and its requests and `splits` count. Raises `UserError` as `Trainer`
    does, and when no learning rate gives finite numbers.

    >>> [type(event).__name__ for event in fq.train(
    ...     config.changed(max_steps=1, probes=0), fq.load_base(config), data, folder / "run")]
    ['Started', 'Evaluated', 'Saved', 'Stepped', 'Evaluated', 'Saved', 'Finished']
    """
    requests, stops = ranks.heard_by_all(requests, stops)
    trainer = Trainer(config, base, data, folder, accept_changes, stops, splits)
    state, began = trainer.state, time.perf_counter()
    if ranks.rank() == 0:
        yield from trainer.started()
    if trainer.checkpoint:
        yield events.Saved(step=state.step, path=checkpoints.name_of(state.step))
    ended = yield from trainer.evaluate_if_due()
    if not trainer.checkpoint:
        yield from trainer.save()
    while not ended:
        start = time.perf_counter()
        rate = learning_rate(config, state.learning_rate, state.step, trainer.total_steps)
        batches = trainer.batches(state.step)
        # Dropout is a function of the seed, the step and the process.
        mx.random.seed(config.seed * 1_000_003 + state.step + (ranks.rank() << 40))
        loss, grad_norm, shares = trainer.step(batches, rate)
        state.step += 1
        epoch = state.step / trainer.sampler.updates_per_epoch
        if cause := not_finite(loss, grad_norm):
            rows = trainer.rows(state.step - 1)
            yield events.Skipped(step=state.step, epoch=epoch, cause=cause, rows=rows)
            state.skipped_in_a_row += 1
            if state.skipped_in_a_row == SKIPS_UNTIL_ROLLBACK:
                if state.rollbacks == ROLLBACKS:
                    raise UserError(diagnosis(cause, rows, state.learning_rate))
                state = trainer.roll_back()
                path = checkpoints.name_of(state.step)
                yield events.RolledBack(step=state.step, path=path, learning_rate=state.learning_rate)
                continue
        else:
            hosts = shares if len(shares) > 1 else []
            yield events.Stepped(
                step=state.step,
                epoch=epoch,
                loss=loss,
                learning_rate=rate,
                grad_norm=grad_norm,
                supervised_tokens=sum(share.supervised for share in shares),
                tokens=sum(share.tokens for share in shares),
                positions=sum(share.positions for share in shares),
                seconds=time.perf_counter() - start,
                peak_memory_gb=max(peak_memory() / 1e9, *(share.peak_memory_gb for share in shares)),
                host_speeds=tuple(share.tokens / share.seconds for share in hosts),
                host_memory_gb=tuple(share.peak_memory_gb for share in hosts),
            )
            if loss > (bound := spike_bound(state.losses)):
                yield events.Spiked(step=state.step, loss=loss, bound=bound)
            state.losses = [*state.losses, loss][-LOSSES:]
            state.skipped_in_a_row = 0

        ended = yield from trainer.evaluate_if_due()
        asked = requests()
        if asked.pause and not ended:
            yield from trainer.save()
            yield events.Paused(step=state.step, cause="asked")
            while (asked := requests()).pause and not stops():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            yield events.Resumed(step=state.step)
        if asked.learning_rate:
            state.learning_rate = asked.learning_rate
            yield events.RateChanged(step=state.step, learning_rate=state.learning_rate)
        if not ended and stops():
            ended = "stopped"
        if ended or asked.save or asked.learning_rate or state.step % config.save_every == 0:
            yield from trainer.save()

    if ended == "stopped" and state.step and state.evaluated != state.step:
        # So that it can be the best: what was saved has learnt something, and was never measured.
        measured = yield from trainer.evaluate(stops_to_end_it=2)
        if measured:
            yield from trainer.save()
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

    Goes on from the last whole `checkpoint` in `folder`; without any it begins with a fresh adapter, or with
    the weights of the one that the config names. Raises `UserError` on data that are too few, on an adapter
    that one cannot go on from, when there is no room to save, and on a run that began with another config or
    other data, unless `accept_changes`.
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
        self._stops, self._splits = stops, ranks.first(lambda: splits)
        data.check()
        self.sampler = make_sampler(config, data.training.lengths)
        steps = max(1, round(config.epochs * self.sampler.updates_per_epoch))
        self.total_steps = min(steps, config.max_steps or steps)
        validation = data.validation.rows() if config.probes else []
        asked = [row.in_style(config.answer_style) for _, row in validation]
        self._probes = Probes(asked, base.tokenizer, config.probes)

        if config.packing:
            check_packable(base.model, base.name)
        self._parts = side_by_side(base.model)
        attach(base.model, config)
        if config.grad_checkpoint:
            use_checkpointing(base.model)
        self.step = Step(base.model, config)
        self.trainable = sum(array.size for _, array in tree_flatten(base.model.trainable_parameters()))

        self._hosts = tuple(ranks.said(ranks.name())) if ranks.size() > 1 else ()
        checkpoint, state = ranks.first(lambda: self._take_up(accept_changes))
        self.checkpoint, self.state = checkpoint and folder / checkpoint, saving.State(**state)
        self.step.agree()

    def _take_up(self, accept_changes: bool) -> tuple[str | None, dict[str, Any]]:
        """In the first process: where training stands, from the last checkpoint, which is named, or anew."""
        config, folder = self.config, self.folder
        folder.mkdir(parents=True, exist_ok=True)
        write_left_out(config, self.data, folder)
        checkpoints.tidy(folder)
        self._fingerprints = checkpoints.fingerprints(config)
        checkpoint = checkpoints.latest(folder)
        if checkpoint is None:
            if config.from_adapter:
                start_from(self.base.model, config, adapter_folder(config.from_adapter))
            saving.check_room(folder, config, self.trainable)
            return None, asdict(saving.State(learning_rate=config.learning_rate))
        changed = checkpoints.changes(checkpoint, config, self._fingerprints)
        if changed and not accept_changes:
            raise UserError(
                f"o treino em {folder} começou com outras definições ou outros dados "
                f"({'; '.join(changed)}): volte a eles, escolha outro nome, ou aceite a mudança com "
                "--accept-changes"
            )
        return str(checkpoint.relative_to(folder)), asdict(saving.restore(checkpoint, self.step))

    def started(self) -> Iterator[Event]:
        """What is about to be trained, and which newer checkpoints are damaged."""
        cost = estimate(self.config, on_cpu())
        yield events.Started(
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
            hosts=self._hosts,
        )
        for damaged in takewhile(lambda one: one != self.checkpoint, checkpoints.checkpoints(self.folder)):
            path, reason = str(damaged.relative_to(self.folder)), str(verify(damaged))
            yield events.Discarded(step=self.state.step, path=path, reason=reason)

    def batches(self, n: int) -> list[list[Batch]]:
        """What this process computes of update `n` (0 is the first): its micro-batches, each in parts to
        compute side by side. Windows of several rows are split where there are too few for all processes."""
        micro_batches, window = self.sampler[n], self.sampler.window
        for _ in range(self._splits):
            micro_batches, window = halved(micro_batches), None
        while sum(map(len, micro_batches)) < ranks.size() and max(map(len, chain(*micro_batches))) > 1:
            micro_batches, window = halved(micro_batches), None
        mine = ranks.share(micro_batches)
        return [collate_parts(self.data.training, one, window, self._parts) for one in mine]

    def rows(self, n: int) -> tuple[str, ...]:
        """The rows in update `n`, as "file:line"."""
        rows = np.sort(np.concatenate(list(chain(*self.sampler[n]))))
        return tuple(f"{self.config.train_data}:{self.data.training.lines[row]}" for row in rows)

    def evaluate_if_due(self) -> Generator[Event, None, str]:
        """Evaluate where the plan says so; returns why training is over, as in `Finished`, or "" while it is
        not. An evaluation that a stop ends early is still due when training goes on."""
        state = self.state
        if self._is_due() and state.evaluated != state.step:
            measured = yield from self.evaluate(stops_to_end_it=1)
            if not measured:
                return "stopped"
        if 0 < self.config.early_stopping_patience <= state.evaluations_since_best:
            return "early_stopping"
        return "completed" if state.step >= self.total_steps else ""

    def _is_due(self) -> bool:
        """Whether the plan has an evaluation after this update."""
        return self.state.step >= self.total_steps or self.state.step % self.config.eval_every == 0

    def evaluate(self, stops_to_end_it: int) -> Generator[Event, None, bool]:
        """Keep the adapter if its validation loss is the lowest so far, and ask the probes; nothing of that
        when a stop is asked for so many times meanwhile, and then returns False."""
        state, model, start = self.state, self.base.model, time.perf_counter()
        cut = lambda: self._stops() >= stops_to_end_it
        loss = validation_loss(model, self.data.validation, self.config, cut)
        general = validation_loss(model, self.data.general, self.config, cut)
        if loss is None or general is None:
            return False
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
        yield events.Evaluated(
            step=state.step, epoch=epoch, loss=loss, best=best, seconds=seconds, general_loss=general
        )
        if self._is_due() and (questions := self._probes.questions):
            expected, answers = self._probes.expected, self._probes.answers(model)
            yield events.Sampled(step=state.step, questions=questions, expected=expected, answers=answers)
        return True

    def save(self) -> Iterator[Event]:
        """Write a checkpoint."""
        state, base = self.state, self.base.name
        yield from self._when_there_is_room(
            lambda: saving.save(self.folder, state, self.config, self._fingerprints, base, self.step)
        )
        self.step.agree()  # on chips of several kinds the last bits may have drifted apart
        yield events.Saved(step=state.step, path=checkpoints.name_of(state.step))

    def _when_there_is_room(self, write: Callable[[], None]) -> Iterator[Event]:
        """Call `write` in the first process, again and again while the disk is full; raises its
        `DiskFullError` when a stop is asked for meanwhile."""
        waiting = False
        while True:
            try:
                ranks.first(write)
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

    def roll_back(self) -> saving.State:
        """Back to the last checkpoint, with half the learning rate: returns the state there; raises
        `UserError` when none is whole."""
        before = self.state

        def back() -> dict[str, Any]:
            checkpoint = checkpoints.latest(self.folder)
            if checkpoint is None:
                raise UserError(f"já não há nenhum ponto de controlo inteiro em {self.folder}")
            return asdict(saving.restore(checkpoint, self.step))

        self.state = saving.State(**ranks.first(back))
        self.step.agree()
        self.state.learning_rate, self.state.rollbacks = before.learning_rate / 2, before.rollbacks + 1
        return self.state


def diagnosis(cause: str, rows: Sequence[str], learning_rate: float) -> str:
    """What to tell the user when halving the learning rate did not help."""
    shown = ", ".join(rows[:4]) + (" …" if len(rows) > 4 else "")
    return (
        f"{cause} em {SKIPS_UNTIL_ROLLBACK} atualizações seguidas, mesmo depois de reduzir {ROLLBACKS} "
        f"vezes a taxa de aprendizagem (agora {learning_rate:g}); veja "
        f"{'as linhas' if rows[1:] else 'a linha'} {shown}, baixe learning_rate ou ligue max_grad_norm"
    )
