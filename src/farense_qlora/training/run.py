"""A run is a folder: launch its worker, read its events live or replayed, ask things of it, wait for it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..config import HOME, RUNS, Config
from ..errors import UserError, disk_error
from ..files import bytes_in
from ..table import Table
from ..text import Sentence, size
from .checkpoints import best, latest
from .event_log import NAME, EventReader
from .events import Evaluated, Event, Failed, Finished, Paused, Resumed, Started, from_json, last, of
from .numbers import Gap, Numbers, generalization_gap, history, numbers
from .requests import LEARNING_RATE, PAUSE, SAVE, STOP, STOP_NOW, is_requested, request
from .worker import is_locked, take_lock

POLL_SECONDS = 0.2
ENDED = ("completed", "early_stopping")  # the statuses of a run with nothing left to train
DELETED = ".deleted"  # at the end of the hidden name of what is being deleted


class Run:
    """The run in the folder `folder`, live or long finished: all that is known of it is in its files.

    >>> run = fq.Run.open("decorado")
    >>> history = run.history
    >>> int(history.loc[history["loss"].idxmin(), "step"]) > 40
    True
    """

    def __init__(self, folder: Path, worker: "subprocess.Popen[bytes] | None" = None):
        self.folder, self.name, self._worker = folder, folder.name, worker
        self._log = EventReader(folder)

    @classmethod
    def open(cls, name: str) -> "Run":
        """The run called `name`; raises `UserError` if there is none."""
        if not (RUNS / name / "config.json").exists():
            raise _no_run(name)
        return cls(RUNS / name)

    @property
    def config(self) -> Config:
        """The settings of the run; raises `UserError` when they cannot be read."""
        return Config.read(self.folder / "config.json")

    @property
    def alive(self) -> bool:
        """Whether a worker is at it."""
        if self._worker is not None:
            self._worker.poll()  # so that one that ended does not linger as a zombie
        return is_locked(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end, by itself or stopped."""
        return bool(of(self.events()[-1:], Finished))

    @property
    def status(self) -> str:
        """Where the run stands; see `status`."""
        return status(self.alive, self.events())

    @property
    def numbers(self) -> Numbers:
        """What the events so far come to."""
        return numbers(self.events())

    @property
    def history(self) -> Table:
        """Losses, rates and speeds, one row an update; see `numbers.history`."""
        return history(self.events())

    @property
    def gap(self) -> Gap:
        """How far validation lies from training, and the verdict."""
        return generalization_gap(self.events())

    @property
    def best_adapter(self) -> Path:
        """The adapter with the lowest validation loss, or the last saved when none but the untrained one was
        measured; raises `UserError` if there is none."""
        kept = best(self.folder)
        if kept and any(event.step for event in of(self.events(), Evaluated)):
            return kept  # without `latest`, which reads a whole checkpoint to see that it is sound
        folder = latest(self.folder) or kept
        if folder is None:
            raise UserError(f"o treino «{self.name}» ainda não guardou nenhum adaptador")
        return folder

    def events(self) -> list[Event]:
        """All events so far, in order; what was done again, after a crash or a roll-back, stands once."""
        self._log.poll()
        return self._log.events

    def follow(self) -> Iterator[Event]:
        """Every event from the first, then each new one as it comes, until the run ends; also those that a
        crash or a roll-back undid.

        Raises `UserError` when the worker fails, or ends without a word.
        """
        log, end = EventReader(self.folder), None
        while True:
            alive = self.alive  # asked before reading: what a worker wrote before it ended is read below
            for event in log.poll():
                end = event
                if not isinstance(event, Failed):
                    yield event
            if not alive:
                break
            time.sleep(POLL_SECONDS)
        if isinstance(end, Failed):
            raise UserError(end.message)
        if not isinstance(end, Finished):
            raise UserError(
                f"o treino «{self.name}» acabou sem aviso (falta de memória?); veja "
                f"{self.folder / 'worker.log'} e comece-o outra vez: continua do último ponto de controlo"
            )

    def wait(self) -> "Run":
        """Block until the run ends; raises `UserError` if it fails."""
        for _ in self.follow():
            pass
        return self

    def stop(self) -> None:
        """Ask the worker to finish its update, save, evaluate and end; asked again, it ends at once with what
        is saved."""
        request(self.folder, STOP_NOW if is_requested(self.folder, STOP) else STOP)

    def pause(self) -> None:
        """Ask the worker to finish its update, save and wait."""
        request(self.folder, PAUSE)

    def resume(self) -> None:
        """Let a paused worker go on."""
        (self.folder / PAUSE).unlink(missing_ok=True)

    def save_now(self) -> None:
        """Ask the worker for a checkpoint after this update."""
        request(self.folder, SAVE)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Ask the worker to train with this peak learning rate from the next update on; raises `UserError`
        on a value that the config would not take."""
        self.config.changed(learning_rate=learning_rate)
        request(self.folder, LEARNING_RATE, repr(float(learning_rate)))

    def hold(self) -> IO[str]:
        """Keep the run from being trained until what this returns is closed.

        Raises `UserError` while it is being trained, and unless it is a folder among the runs, not a link.
        """
        if self.folder not in [run.folder for run in all_runs()]:
            raise _no_run(self.name)
        if self.folder.is_symlink():
            raise UserError(
                f"«{self.name}» é só uma ligação para {self.folder.resolve()}: apague essa pasta, ou mude-lhe"
                " o nome, onde ela está"
            )
        lock = take_lock(self.folder)
        if lock is None:
            raise UserError(
                f"«{self.name}» não se apaga nem muda de nome enquanto treina: espere que acabe, ou pare-o "
                f"(«farense-qlora stop --run {self.name}»)"
            )
        return lock

    def delete(self) -> str:
        """Delete the run, and say how much of the disk that gave back; what was exported of it stays.

        Raises `UserError` as `hold` does, and when the disk refuses.
        """
        with self.hold():
            freed, doomed = bytes_in(self.folder), RUNS / f".{self.name}{DELETED}"
            try:
                for left in RUNS.glob(f".*{DELETED}"):  # by a deletion that died
                    shutil.rmtree(left, ignore_errors=True)
                os.rename(self.folder, doomed)  # from here on there is no such run, whatever happens
                shutil.rmtree(doomed)
            except OSError as error:
                raise disk_error(error, error.filename or self.folder) from None
        return Sentence(f"treino «{self.name}» apagado: libertou {size(freed / 1e9)}")

    def rename(self, name: str) -> str:
        """Call the run `name` from now on, and say so; raises `UserError` as `hold` does, and when the name
        cannot be one or is taken."""
        with self.hold():
            folder = free_folder(name)
            try:
                os.rename(self.folder, folder)
            except OSError as error:
                raise disk_error(error, folder) from None
        before, self.name, self.folder, self._log = self.name, name, folder, EventReader(folder)
        return Sentence(f"o treino «{before}» chama-se agora «{name}»")


def free_folder(name: str) -> Path:
    """The folder of a run that is to be called `name`; raises `UserError` when it cannot be, or is taken."""
    folder = new_folder(name)
    if taken := next((old for old in os.listdir(RUNS) if old.casefold() == name.casefold()), None):
        raise UserError(f"o nome «{name}» já está em uso («{taken}»): escolha outro")
    return folder


def adapter_folder(name: str) -> Path:
    """Where the adapter is that a config calls `name`: in that folder, or it is the best of the run there.

    Raises `UserError` when it is a run that has saved none.
    """
    folder = HOME / Path(name).expanduser()
    return Run(folder).best_adapter if (folder / NAME).exists() else folder


def status(alive: bool, events: Sequence[Event]) -> str:
    """One of "running", "paused", "completed", "early_stopping", "stopped", "failed", "interrupted" (its
    worker died without a word) and "new" (there is nothing but its config)."""
    if alive:
        return "paused" if isinstance(last(events, Started, Paused, Resumed), Paused) else "running"
    end = events[-1] if events else None
    if isinstance(end, Finished):
        return end.reason
    return "failed" if isinstance(end, Failed) else "interrupted" if events else "new"


def all_runs() -> list[Run]:
    """All runs, the one that began last first."""
    folders = [path.parent for path in RUNS.glob("[!.]*/config.json")]
    return list(map(Run, sorted(folders, key=lambda folder: (_began(folder), folder.name), reverse=True)))


def in_vain(state: str, step: int) -> bool:
    """Whether a run with this status, at update `step`, never trained: lists leave such attempts out."""
    return state in ("failed", "interrupted") and not step


def listed_runs() -> list[Run]:
    """All runs but those in vain, the one that began last first."""
    return [run for run in all_runs() if not in_vain(run.status, run.numbers.step)]


def _no_run(name: str) -> UserError:
    known = ", ".join(run.name for run in listed_runs()) or "ainda nenhum"
    return UserError(f"não há nenhum treino chamado «{name}» em {RUNS} (há: {known})")


def new_folder(name: str) -> Path:
    """The folder of a new run called `name`; raises `UserError` when it cannot be called so."""
    folder = RUNS / name
    if not re.fullmatch(r"[\w][\w.-]*", name):
        raise UserError(f"«{name}» não serve de nome: use letras, algarismos, hífenes e pontos")
    return folder


def _began(folder: Path) -> float:
    """When the run in `folder` began: its first event tells, and its config until there is one. The dates of
    the folder do not: an evaluation that is stored there changes them, and so does copying it."""
    first = None
    with suppress(FileNotFoundError), open(folder / NAME, "rb") as file:
        first = from_json(file.readline())
    return first.time if first else (folder / "config.json").stat().st_mtime
