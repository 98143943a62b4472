"""`farense-qlora serve` in a process of its own, on a free port of this machine."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import FARENSE


@dataclass(frozen=True)
class Served:
    """A server that runs: its address, its process and the file with what it writes to stderr."""

    url: str
    process: "subprocess.Popen[str]"
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def connect(self, timeout: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)


def answers(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


@contextmanager
def serving(home: Path, log: Path, *arguments: object, token: str = "") -> Iterator[Served]:
    """Serve the run that `trained` made in `home`, with more `arguments`; ends the process at the end."""
    command = [*FARENSE, "serve", "--run", "decorado", "--port", "0", *map(str, arguments)]
    environment = {**os.environ, "FARENSE_HOME": str(home), "FARENSE_API_KEY": token}
    with (
        open(log, "w") as errors,
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address, log.read_text()
            yield Served(address[0], process, log)
        finally:
            process.send_signal(signal.SIGKILL)
