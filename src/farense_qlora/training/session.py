"""A run in progress: what it trains on and with, where it stands, and how that is saved and taken back."""

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from mlx.utils import tree_flatten

from ..config import Config
from ..data.batches import Batch, collate_parts, make_sampler
from ..data.load import VALIDATION, load_data, write_left_out
from ..errors import DiskFullError, UserError
from ..model.adapters import attach
from ..model.base import Base
from ..model.checkpointing import use_checkpointing
from ..model.cpu.parallel import side_by_side
from ..model.from_adapter import start_from
from ..model.packed import check_packable
from .checkpoints import State, changes, fingerprints, latest, restore, save, save_best, tidy
from .control import Asked
from .evaluation import validation_loss
from .events import Evaluated, Event, Paused, Resumed, Sampled, Saved
from .probes import Probes
from .run import adapter_folder
from .update import Updater

SECONDS_BETWEEN_TRIES_TO_SAVE = 2.0
T = TypeVar("T")


class Session:
    """The adapter, the data, their order and the `state` of the run in the folder `run`.

    Goes on from the last whole checkpoint; `damaged` lists newer ones that are not, each with what is wrong.
    One without any begins with a fresh adapter, or with the weights of the one that the config names.
    Raises `UserError` on data that cannot be trained on, or an adapter that one cannot go on from, when there
    is no room to save, and for a run that began with another config or other data, unless `accept_changes`.
    """

    def __init__(self, config: Config, base: Base, run: Path, accept_changes: bool):
        self.config, self.base, self.run, self.model = config, base, run, base.model
        run.mkdir(parents=True, exist_ok=True)
        tidy(run)
        self._fingerprints = fingerprints(config)
        self.data = load_data(config, base)
        if config.batch_size > len(self.data.training):
            raise UserError(
                f"batch_size = {config.batch_size} é maior do que os dados de treino "
                f"({len(self.data.training)} linhas em {config.train_data}): reduza o lote"
            )
        write_left_out(config, self.data, run)
        if config.packing:
            check_packable(base.model, base.name)
        validation = self.data.held_out()[VALIDATION] if config.probes else []
        self._probes = Probes(validation, base.tokenizer, config.probes)
        self._count = side_by_side(base.model)
        self.order = make_sampler(config, self.data.training.lengths, self._count)
        total = max(1, round(config.epochs * self.order.updates_per_epoch))
        self.total_steps = min(total, config.max_steps or total)

        attach(self.model, config)
        if config.grad_checkpoint:
            use_checkpointing(self.model)
        self.update = Updater(self.model, config)
        self.trainable = sum(array.size for _, array in tree_flatten(self.model.trainable_parameters()))
        self.damaged: list[tuple[Path, str]] = []
        self.checkpoint = latest(run, lambda path, reason: self.damaged.append((path, reason)))
        if self.checkpoint is None:
            if config.from_adapter:
                start_from(self.model, config, adapter_folder(config.from_adapter))
            self._check_room()
            self.state = State(config.learning_rate)
            return
        if (changed := changes(self.checkpoint, config, self._fingerprints)) and not accept_changes:
            raise UserError(
                f"o treino em {run} começou com outras definições ou outros dados ({'; '.join(changed)}): "
                "volte a eles, escolha outro nome, ou aceite a mudança com --accept-changes"
            )
        self.state = restore(self.checkpoint, self.model, self.update.optimizer)

    def batches(self, step: int) -> list[list[Batch]]:
        """The micro-batches of update `step`, each in parts to compute side by side."""
        return [
            collate_parts(self.data.training, micro_batch, self.order.window, self._count)
            for micro_batch in self.order[step]
        ]

    def rows(self, step: int) -> tuple[str, ...]:
        """The rows in update `step`, as "file:line"."""
        rows = np.concatenate(list(chain(*self.order[step])))
        return tuple(f"{self.config.train_data}:{self.data.training.lines[row]}" for row in np.sort(rows))

    @property
    def due(self) -> bool:
        """Whether an evaluation is, before the next update."""
        step = self.state.step
        return self.state.evaluated != step and (
            step % self.config.eval_every == 0 or step == self.total_steps
        )

    @property
    def end(self) -> str:
        """Why training is over, as in `Finished`; empty while it is not."""
        if 0 < self.config.early_stopping_patience <= self.state.evaluations_since_best:
            return "early_stopping"
        return "completed" if self.state.step >= self.total_steps else ""

    def evaluate(self, asked: Asked) -> Iterator[Event]:
        """Measure the validation loss, keep the adapter when it is the lowest so far, and ask the probes.

        Given up when a stop is asked meanwhile: it is then still due when training goes on.
        """
        start, state = time.perf_counter(), self.state
        loss = validation_loss(self.model, self.data.validation, self.config, asked.stop)
        if loss is None:
            return
        state.evaluated = state.step
        # An adapter that learnt nothing is no result, even where learning made the validation worse.
        best = state.best_loss is None or state.best_step == 0 or loss < state.best_loss
        if best:
            state.best_step, state.best_loss, state.evaluations_since_best = state.step, loss, 0
            yield from self._patiently(
                lambda: save_best(self.run, self.config, self.base.name, self.model, state.step), asked
            )
        else:
            state.evaluations_since_best += 1
        epoch = state.step / self.order.updates_per_epoch
        yield Evaluated(state.step, time.time(), epoch, loss, best, time.perf_counter() - start)
        if probes := self._probes.questions:
            answers = self._probes.answers(self.model)
            yield Sampled(state.step, time.time(), probes, self._probes.expected, answers)

    def save(self, asked: Asked) -> Iterator[Event]:
        """Write a checkpoint."""
        optimizer = self.update.optimizer
        path = yield from self._patiently(
            lambda: save(
                self.run, self.state, self.config, self._fingerprints, self.base.name, self.model, optimizer
            ),
            asked,
        )
        yield Saved(self.state.step, time.time(), path)

    def _patiently(self, write: Callable[[], T], asked: Asked) -> Generator[Event, None, T]:
        """What `write` returns, tried until the disk has room for it; gives up when a stop is asked."""
        waiting = False
        while True:
            try:
                written = write()
                break
            except DiskFullError as error:
                if asked.stop():
                    raise
                if not waiting:
                    yield Paused(self.state.step, time.time(), str(error))
                waiting = True
                time.sleep(SECONDS_BETWEEN_TRIES_TO_SAVE)
        if waiting:
            yield Resumed(self.state.step, time.time())
        return written

    def roll_back(self) -> str:
        """Back to the last checkpoint, with half the learning rate; returns its path in the run folder.

        Raises `UserError` when none is whole.
        """
        checkpoint = latest(self.run)
        if checkpoint is None:
            raise UserError(f"já não há nenhum ponto de controlo inteiro em {self.run}")
        before = self.state
        self.update = Updater(self.model, self.config)
        self.state = restore(checkpoint, self.model, self.update.optimizer)
        self.state.learning_rate, self.state.rollbacks = before.learning_rate / 2, before.rollbacks + 1
        return str(checkpoint.relative_to(self.run))

    def _check_room(self) -> None:
        """Before the first update: the checkpoints that will lie side by side must have room."""
        size = 3 * 4 * self.trainable  # the adapter and two moments, in 32 bits
        needed = size * (self.config.keep_last + 2)
        free = shutil.disk_usage(self.run).free
        if free < needed:
            raise UserError(
                f"o disco de {self.run} tem {free / 1e6:.0f} MB livres e o treino precisa de "
                f"{needed / 1e6:.0f} MB para os pontos de controlo: liberte espaço ou baixe keep_last"
            )
