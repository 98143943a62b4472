"""Other computers for the tests: all of them this one, reached by an `ssh` that is a shell."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from farense_qlora.training.event_log import EventReader
from farense_qlora.training.run import Run

Hosts = Callable[..., Path]
HELPER = "farense_qlora.training.helper"


@contextmanager
def hosts_in(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """`hosts(name, ..., name="a line of shell")` writes a file with this computer and others, and says what
    each of these does before it begins. At the end no process of theirs may be left."""
    before = helpers()
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir(exist_ok=True)
    # Like ssh, it takes options, a name, and a command that it hands to a shell.
    ssh.write_text('#!/bin/sh\n. "$(dirname "$0")/$3"\nshift 3\ncd\nexec sh -c "exec $*"\n')
    ssh.chmod(0o755)
    patch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")

    def write(*names: str, **does: str) -> Path:
        for name in names:
            (ssh.parent / name).write_text(does.get(name, ":") + "\n")
        nodes = [{"ssh": name, "ips": ["127.0.0.1"]} for name in ("este", *names)]
        file = folder / f"{len(names) + 1}.json"
        file.write_text(json.dumps(nodes))
        return file

    yield write
    until = time.monotonic() + 10
    while (left := [one for one in helpers() if one not in before]) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


def helpers() -> list[psutil.Process]:
    """The processes of other computers that are at it."""
    found = []
    for process in psutil.process_iter():
        try:
            if HELPER in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def helpers_of(run: Run) -> list[psutil.Process]:
    """Those of `run`, in the order of the computers."""
    assert run._worker is not None
    trainers = psutil.Process(run._worker.pid).children()
    return [child for trainer in trainers for child in trainer.children() if HELPER in child.cmdline()]


def wait_for(run: Run, *kinds: type, count: int = 1) -> None:
    """Until the run has said so many things of these kinds."""
    log, seen = EventReader(run.folder), 0
    while seen < count:
        seen += sum(isinstance(event, kinds) for event in log.poll())
        assert run.alive or seen >= count, (run.folder / "worker.log").read_text()
        time.sleep(0.005)
