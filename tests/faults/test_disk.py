"""A disk that fills up or fails at any single operation: nothing saved is lost, and the run ends the same."""

import builtins
import errno
import io
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from faults.common import SAVE_EVERY, STEPS, WHOLE, Ledger, Result, result_of
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training import event_log, loop
from farense_qlora.training.event_log import EventReader, EventWriter, replay
from farense_qlora.training.events import Event, Paused, RateChanged, Resumed, Stepped
from farense_qlora.training.start import start

TRIES = 400 if WHOLE else 3  # per kind of error; at most one for each operation
REAL_OPEN = builtins.open


class FaultyDisk:
    """Fails the operation number `at` on files below `folder` with the error `code`, once."""

    def __init__(self, folder: Path, at: int, code: int):
        self.folder, self.at, self.code, self.done = str(folder), at, code, 0

    def operation(self) -> None:
        self.done += 1
        if self.done == self.at:
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        writes = not isinstance(path, int) and set(mode) & set("wxa+")
        if not (writes and str(path).startswith(self.folder)):
            return REAL_OPEN(path, mode, *rest, **options)
        self.operation()
        return FaultyFile(REAL_OPEN(path, mode, *rest, **options), self)

    def wrap(self, function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if any(self.folder in str(argument) for argument in arguments) or function is os_fsync:
                self.operation()
            return function(*arguments, **options)

        return wrapped


os_fsync = os.fsync


class FaultyFile:
    """A file whose writes may fail."""

    def __init__(self, file: Any, disk: FaultyDisk):
        self._file, self._disk = file, disk

    def write(self, data: Any) -> Any:
        self._disk.operation()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FaultyFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@pytest.fixture
def begun(config: Config, tmp_path: Path) -> Path:
    """A run that stopped at once after 16 of its 24 updates: with no evaluation that the others lack."""
    run = tmp_path / "begun"
    run.mkdir()
    with closing(EventWriter(run)) as log:
        for event in train_here(config, run, stops=lambda: 2 * at_sixteen(run)):
            log.write(event)
    return run


def at_sixteen(run: Path) -> bool:
    return any(isinstance(e, Stepped) and e.step == 16 for e in EventReader(run).poll())


def go_on(config: Config, run: Path) -> Iterator[Event]:
    with closing(EventWriter(run)) as log:
        for event in train_here(config, run):
            log.write(event)
            yield event


def operations(config: Config, begun: Path, folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        run = shutil.copytree(begun, folder, symlinks=True)
        disk = inject(patch, run, at=0, code=0)
        list(go_on(config, run))
    return disk.done


def inject(patch: pytest.MonkeyPatch, run: Path, at: int, code: int) -> FaultyDisk:
    disk = FaultyDisk(run, at, code)
    patch.setattr(builtins, "open", disk.open)
    patch.setattr(io, "open", disk.open)
    for name in ("rename", "replace", "fsync", "mkdir", "symlink"):
        patch.setattr(os, name, disk.wrap(getattr(os, name)))
    patch.setattr(loop, "SECONDS_BETWEEN_TRIES_TO_SAVE", 0.0)
    patch.setattr(event_log, "SECONDS_BETWEEN_TRIES", 0.0)
    return disk


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_one_operation_that_fails_loses_nothing(
    config: Config, reference: Result, begun: Path, tmp_path: Path, ledger: Ledger, code: int
) -> None:
    total = operations(config, begun, tmp_path / "count")
    assert total > 60
    for at in sorted(random.Random(0).sample(range(1, total + 1), min(TRIES, total))):
        run = shutil.copytree(begun, tmp_path / f"{errno.errorcode[code]}-{at}", symlinks=True)
        lost = 0
        with pytest.MonkeyPatch.context() as patch:
            inject(patch, run, at, code)
            try:
                list(go_on(config, run))
                failed = False
            except (UserError, OSError):
                failed = True
        assert not (failed and code == errno.ENOSPC and at > 3), f"operation {at} of {total}"
        if failed:
            steps = [e.step for e in EventReader(run).poll() if isinstance(e, Stepped)]
            list(go_on(config, run))
            started = [e for e in EventReader(run).poll() if type(e).__name__ == "Started"][-1]
            lost = max(0, steps[-1] - started.step)
        same = result_of(run, replay(EventReader(run).poll())) == reference
        ledger("disco cheio (ENOSPC)" if code == errno.ENOSPC else "disco a falhar (EIO)", same, lost)
        assert same and lost <= SAVE_EVERY, f"operation {at} of {total}"
        shutil.rmtree(run)


def test_a_disk_that_is_really_full_pauses_the_run_until_there_is_room(
    config: Config, reference: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    with small_disk(tmp_path / "small") as small:
        from farense_qlora.training import run as run_module

        monkeypatch.setattr(run_module, "RUNS", small / "runs")
        run = start(config, "cheio")
        paused = False
        for event in run.follow():
            if isinstance(event, Stepped) and event.step == 1:
                fill(small / "filler")
            if isinstance(event, Paused) and not paused:
                paused = True
                assert "cheio" in event.cause and run.status == "paused"
                (small / "filler").unlink()
        events = run.events()
        assert paused and any(isinstance(event, Resumed) for event in events)
        same = result_of(run.folder, events) == reference and events[-1].step == STEPS
        ledger("disco mesmo cheio (tmpfs)", same, 0)
        assert same


def test_a_log_that_cannot_grow_says_so_and_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "SECONDS_BETWEEN_TRIES", 0.01)
    with small_disk(tmp_path / "small") as small, closing(EventWriter(small)) as log:
        fill(small / "filler")
        reader, told = EventReader(small), list[Event]()

        def make_room() -> None:
            until = time.monotonic() + 30
            while not any(isinstance(event, Paused) for event in told) and time.monotonic() < until:
                told.extend(reader.poll())
            (small / "filler").unlink()

        person = Thread(target=make_room)
        person.start()
        written = [
            RateChanged(step=step, learning_rate=1e-4) for step in range(100)
        ]  # more than is left of the last block
        for event in written:
            log.write(event)
        person.join()
        waited = [event for event in EventReader(small).poll() if isinstance(event, Paused | Resumed)]
        assert [type(event) for event in waited] == [Paused, Resumed] and "cheio" in str(waited[0])
        assert [event for event in EventReader(small).poll() if isinstance(event, RateChanged)] == written


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 3 MB in `folder`; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights to")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            return
