"""A run is a folder: launch its worker, read its events live or replayed, stop it, wait for it."""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ..config import RUNS, Config
from ..errors import UserError, reason
from .checkpoints import latest
from .events import Event, Failed, Finished, Started, from_json

POLL_SECONDS = 0.2


class Run:
    """The run in the folder `folder`, live or long finished: all that is known of it is in its files."""

    def __init__(self, folder: Path, worker: subprocess.Popen[bytes] | None = None):
        self.folder, self.name, self._worker = folder, folder.name, worker

    @classmethod
    def open(cls, name: str) -> "Run":
        """The run called `name`; raises `UserError` if there is none."""
        if not (RUNS / name / "config.json").exists():
            known = ", ".join(run.name for run in runs()) or "ainda nenhum"
            raise UserError(f"não há nenhum treino chamado «{name}» em {RUNS} (há: {known})")
        return cls(RUNS / name)

    @property
    def config(self) -> Config:
        return Config.read(self.folder / "config.json")

    @property
    def alive(self) -> bool:
        """Whether a worker is at it: the one started here, or whoever holds the lock."""
        if self._worker is not None and self._worker.poll() is None:
            return True
        try:
            with open(self.folder / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @property
    def finished(self) -> bool:
        return any(isinstance(event, Finished) for event in self.events()[-1:])

    @property
    def best_adapter(self) -> Path:
        """The adapter with the lowest validation loss, or the last saved; raises `UserError` if none is."""
        best = self.folder / "best"
        folder = best if best.exists() else latest(self.folder)
        if folder is None:
            raise UserError(f"o treino «{self.name}» ainda não guardou nenhum adaptador")
        return folder

    def events(self) -> list[Event]:
        """All events so far, in order; what a resumed run did again stands once, as it was done last."""
        events: list[Event] = []
        for event in self._read(0)[0]:
            if isinstance(event, Started):
                events = [old for old in events if old.step <= event.step and not isinstance(old, Finished)]
            events.append(event)
        return events

    def follow(self) -> Iterator[Event]:
        """Every event from the first, then each new one as it comes, until the run ends.

        Raises `UserError` when the worker fails, or ends without a word.
        """
        position, last = 0, None
        while True:
            alive = self.alive  # asked before reading: what a worker wrote before it ended is read below
            events, position = self._read(position)
            for event in events:
                last = event
                if not isinstance(event, Failed):
                    yield event
            if not alive:
                break
            time.sleep(POLL_SECONDS)
        if isinstance(last, Failed):
            raise UserError(last.message)
        if not isinstance(last, Finished):
            raise UserError(f"o treino «{self.name}» acabou sem aviso; veja {self.folder / 'worker.log'}")

    def wait(self) -> "Run":
        """Block until the run ends; raises `UserError` if it fails."""
        for _ in self.follow():
            pass
        return self

    def stop(self) -> None:
        """Ask the worker to finish its update, save and end."""
        (self.folder / "stop").touch()

    def _read(self, position: int) -> tuple[list[Event], int]:
        """The whole lines after byte `position`, as events, and where they end."""
        try:
            with open(self.folder / "events.jsonl", "rb") as file:
                file.seek(position)
                text = file.read()
        except FileNotFoundError:
            return [], position
        whole = text[: text.rfind(b"\n") + 1]
        return [from_json(line.decode()) for line in whole.splitlines()], position + len(whole)


def start(config: Config, name: str | None = None) -> Run:
    """Launch a worker process that trains as `config` says in the run folder `name` (by default a new one).

    A run that exists goes on from its last checkpoint, if `config` is its own; one that saved nothing begins
    again. The worker outlives this process. Raises `UserError` when it is under way or has another config.
    """
    run = Run(RUNS / (name or f"{config.profile}-{datetime.now():%Y%m%d-%H%M%S}"))
    if not re.fullmatch(r"[\w][\w.-]*", run.name) or run.folder.parent != RUNS:
        raise UserError(f"«{name}» não serve de nome: use letras, algarismos, hífenes e pontos")
    if run.alive:
        raise UserError(f"o treino «{run.name}» já está a decorrer")
    if latest(run.folder) is not None and (changes := differences(run.config, config)):
        raise UserError(
            f"já há um treino chamado «{run.name}» com outras definições ({changes}): escolha outro nome"
        )
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        if latest(run.folder) is None:
            (run.folder / "events.jsonl").unlink(missing_ok=True)
        config.write(run.folder / "config.json")
    except OSError as error:
        raise UserError(f"não consigo escrever em {run.folder}: {reason(error)}") from None
    return launch(run.folder)


def differences(old: Config, new: Config) -> str:
    """The settings in which two configs differ, as "rank: 8 -> 16, ..."."""
    before, after = old.model_dump(), new.model_dump()
    return ", ".join(f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key])


def launch(folder: Path) -> Run:
    """Start the worker of the existing run folder `folder`, from its last checkpoint if there is one."""
    (folder / "stop").unlink(missing_ok=True)
    command = [sys.executable, "-m", "farense_qlora.training.worker", str(folder)]
    with open(folder / "worker.log", "ab") as log:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    return Run(folder, worker)


def runs() -> list[Run]:
    """All runs, oldest first."""
    folders = [path.parent for path in RUNS.glob("*/config.json")]
    return [Run(folder) for folder in sorted(folders, key=lambda folder: folder.stat().st_ctime)]
