"""The helpers of a run, one on each of its other computers: started from the first, and watched.

They are started by ssh, as its user has set it up. Each side writes to the other every second: who hears
nothing for some time, or finds the line closed, knows that the other is gone, and ends. (`mlx.launch` does
not say who failed, and leaves processes behind.)
"""

import json
import os
import random
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from math import nan
from pathlib import Path
from shlex import join
from typing import IO, Any

from ..errors import UserError
from ..table import Table
from ..text import decimal
from .events import Cramped, Event, Missing, Started
from .hosts import FILE, NAME, PLACES, RANK, Host, Hosts, differences, greeting
from .keeper import CAUSE, LOG, LOST

SECONDS_TO_ANSWER, SECONDS_TO_END = 60.0, 4.0
SECONDS_OF_SILENCE, SECONDS_BETWEEN_SIGNS = 15.0, 1.0
SECONDS_BETWEEN_CALLS = 60.0  # to computers that are missing
PORTS = range(20_000, 30_000)
HERE = ("127.0.0.1", "localhost", "::1")
SSH = ("ssh", "-oBatchMode=yes", "-oConnectTimeout=10")
HELPER = "farense_qlora.training.helper"


class Helper:
    """The process on `host`."""

    def __init__(self, host: Host):
        self.host, self.greeting, self.is_gone = host, dict[str, Any](), False
        command, python = [sys.executable, "-m", HELPER], _from_home(sys.executable)
        if host.ssh not in HERE:
            command = [*SSH, host.ssh, join([python, "-m", HELPER])]
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != RANK},  # ours is not its own
        )

    def greet(self, seconds: float) -> None:
        """Wait for so long for what it says of itself; a shell may say something before."""
        until = time.monotonic() + seconds
        while not self.greeting and (line := read_line(self._out, until - time.monotonic())):
            if line.startswith(b"{"):
                with suppress(ValueError):
                    self.greeting = json.loads(line)

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        with suppress(OSError):  # that it is gone shows in what it says
            self.process.stdin.write(f"{line}\n".encode())

    def watch(self) -> None:
        """Return when it is gone, or silent for too long."""
        while read_line(self._out, SECONDS_OF_SILENCE):
            pass
        self.is_gone = True

    def end(self) -> None:
        """Close the line, at which it ends; kill it when it does not."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def _out(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout


class Peers:
    """The helpers of the run in `folder`, which `gather` starts and `close` ends; `missing` are computers
    that do not answer, and `back` the name of one of them that answers again."""

    def __init__(self, folder: Path):
        self.missing: list[Host] = []
        self.back = ""
        self._file, self._helpers = folder / FILE, list[Helper]()
        self._one_is_gone, self._over = threading.Event(), False

    def gather(self, goes_on: bool) -> None:
        """Start a helper on each computer that the run has besides this one, and join them with this process.

        Raises `UserError` when one does not answer, unless the run `goes_on` without, and when one would
        compute with other versions than this.
        """
        if not self._file.exists():
            return
        hosts = Hosts.read(self._file)
        called, until = [Helper(host) for host in hosts.hosts[1:]], time.monotonic() + SECONDS_TO_ANSWER
        for helper in called:
            helper.greet(until - time.monotonic())
        self._helpers = [helper for helper in called if helper.greeting]
        for helper in called:
            if not helper.greeting:
                self.missing.append(helper.host)
                helper.end()
        self._check(goes_on)
        if self._helpers:
            self._join(hosts)
        if self.missing:
            threading.Thread(target=self._call_the_missing, daemon=True).start()

    def warnings(self, started: Started) -> Iterator[Event]:
        """What a person should hear of the others when training has `started`: who is missing, and who had
        less memory, when it was called, than it should take."""
        if self.missing:
            yield Missing(step=started.step, hosts=tuple(host.name for host in self.missing))
        needed = started.predicted_gb or 0.0
        for helper in self._helpers:
            if (free := helper.greeting["free_gb"]) < needed:
                yield Cramped(step=started.step, host=helper.host.name, free_gb=free, predicted_gb=needed)

    def lost(self) -> str:
        """Which computers are gone, in Portuguese; waits until that is known."""
        self._one_is_gone.wait(SECONDS_OF_SILENCE + SECONDS_TO_END)
        time.sleep(0.5)  # those that end because of it are not to blame
        codes = [(one.host.name, one.process.poll()) for one in self._helpers if one.is_gone]
        blamed = " e ".join(
            f"«{name}» deixou de dar sinal" if code is None else f"«{name}» acabou com o código {code}"
            for name, code in codes
            if code != LOST
        )
        return f"perdeu-se a ligação entre os computadores: {blamed or 'não se sabe a qual'}"

    def close(self) -> None:
        """Have all helpers end."""
        self._over = True
        for helper in self._helpers:
            helper.end()

    def _check(self, goes_on: bool) -> None:
        if self.missing and not goes_on:
            names = " e ".join(f"«{host.name}»" for host in self.missing)
            raise UserError(
                f"sem resposta de {names}: é preciso que «ssh {self.missing[0].ssh}» entre sem senha, e que "
                f"lá esteja o projeto em {_from_home(sys.executable)} ({LOG} diz o que falhou)"
            )
        here = greeting()
        for helper in self._helpers:
            if found := differences(here, helper.greeting):
                raise UserError(
                    f"«{helper.host.name}» não calcula com o mesmo ({found}): atualize lá o projeto, com git "
                    "pull e make setup"
                )

    def _join(self, hosts: Hosts) -> None:
        """Tell each of the processes, this one too, who the others are; and watch them from then on."""
        present = [hosts.hosts[0], *(helper.host for helper in self._helpers)]
        variables, file, places = hosts.environment(present, random.choice(PORTS))
        for rank, host in enumerate(present):
            known = {**variables, RANK: str(rank), NAME: host.name}
            if rank:
                self._helpers[rank - 1].tell(json.dumps([known, file, places]))
            else:
                enter(known, file, places)
        for helper in self._helpers:
            threading.Thread(target=self._watch, args=[helper], daemon=True).start()
        threading.Thread(target=self._give_signs, daemon=True).start()

    def _watch(self, helper: Helper) -> None:
        helper.watch()
        self._one_is_gone.set()
        time.sleep(SECONDS_TO_END)
        if not self._over:  # this process is still inside MLX, which waits for ever for one that is silent
            print(CAUSE + self.lost(), file=sys.stderr, flush=True)
            self.close()
            os._exit(LOST)

    def _give_signs(self) -> None:
        while not self._over:
            for helper in self._helpers:
                helper.tell()
            time.sleep(SECONDS_BETWEEN_SIGNS)

    def _call_the_missing(self) -> None:
        while not self.back and not self._over:
            time.sleep(SECONDS_BETWEEN_CALLS)
            for host in self.missing:
                helper = Helper(host)
                helper.greet(SECONDS_TO_ANSWER)
                helper.end()
                if helper.greeting:
                    self.back = host.name


def hosts(file: str | Path) -> Table:
    """What each computer in `file` says of itself, and with what it computes otherwise than this one.

    Raises `UserError` when the file is not what `mlx.distributed_config` writes.

    >>> _ = (folder / "hosts.json").write_text('[{"ssh": "mac1", "ips": ["10.0.0.1"]}]')
    >>> fq.hosts(folder / "hosts.json")["Computador"].tolist()
    ['mac1']
    """
    first, *others = Hosts.read(Path(file)).hosts
    here, called = greeting(), [Helper(host) for host in others]
    rows = [(first.name, f"este ({here['system']})", here["memory_gb"], here["free_gb"])]
    until = time.monotonic() + SECONDS_TO_ANSWER
    for helper in called:
        helper.greet(until - time.monotonic())
        helper.end()
        if about := helper.greeting:
            found = differences(here, about)
            state = f"não calcula com o mesmo: {found}" if found else f"pronto ({about['system']})"
            rows.append((helper.host.name, state, about["memory_gb"], about["free_gb"]))
        else:
            rows.append((helper.host.name, f"não responde: experimente «ssh {helper.host.ssh}»", nan, nan))
    columns = ["Computador", "Estado", "Memória (GB)", "Livre (GB)"]
    one = partial(decimal, digits=1)
    return Table(rows, columns=columns, caption="Computadores", formats=dict.fromkeys(columns[2:], one))


def enter(known: dict[str, str], file: str, places: str) -> None:
    """Put into the environment what MLX wants to know to join the others; see `Hosts.environment`."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as content:
        content.write(places)
    os.environ |= {**known, file: content.name, PLACES: content.name}


def read_line(stream: IO[bytes], seconds: float) -> bytes:
    """The next line of `stream`, which has no buffer; empty when none comes within `seconds`, or ever."""
    for patience in (max(0.0, seconds), 0.0):  # a thread may have slept through it while Python was busy
        if select.select([stream], [], [], patience)[0]:
            return stream.readline()
    return b""


def _from_home(path: str) -> str:
    """`path` as ssh takes it, which begins in its user's folder: he may have another name there."""
    return os.path.relpath(path, Path.home()) if Path(path).is_relative_to(Path.home()) else path
