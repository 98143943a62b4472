"""The monitor fits any terminal, waits, follows a run over the death of its worker, and leaves it alone."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from conftest import FARENSE
from rich.console import Console
from ui_events import events, write_run

from farense_qlora.errors import UserError
from farense_qlora.training.events import Event, Restarted
from farense_qlora.training.overview import overview
from farense_qlora.training.run import Run
from farense_qlora.ui.monitor import newest, screen

# A worker in all that a monitor can see: it holds the lock, writes the events it is given, and dies.
WORKER = """
import fcntl, pathlib, sys
folder = pathlib.Path(sys.argv[1])
lock = open(folder / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
for line in sys.stdin:
    with open(folder / "events.jsonl", "a") as file:
        file.write(line)
"""


class Terminal:
    """`farense-qlora monitor` in a pseudo-terminal of 24 lines of 80 characters."""

    def __init__(self, home: Path, *arguments: str):
        self._master, slave = pty.openpty()
        self.resize(24, 80)
        environment = {**os.environ, "FARENSE_HOME": str(home), "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [*FARENSE, "monitor", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._master, 65536).decode(errors="replace")
            except OSError:
                return

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def shows(self, text: str) -> None:
        """Wait until `text` is drawn from now on; fails after a minute."""
        start, deadline = len(self.text), time.monotonic() + 60
        while text not in re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", self.text[start:]):
            assert time.monotonic() < deadline, self.text[start:][-3000:]
            assert self.process.poll() is None, self.text
            time.sleep(0.1)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments))
        return opened[-1]

    yield open_one
    for one in opened:
        one.process.kill()
        one.process.wait()


def worker(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WORKER, folder], stdin=subprocess.PIPE, text=True)


def say(process: "subprocess.Popen[str]", said: list[Event]) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(event.to_json() + "\n" for event in said))
    process.stdin.flush()


def test_it_waits_for_a_run_follows_it_over_a_restart_and_ends_with_it(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    shown = terminal("--run", "logo")
    shown.shows("à espera do treino «logo»")
    folder = tmp_path / "checkpoints_qlora" / "logo"
    write_run(folder, [])
    first = worker(folder)
    shown.shows("a preparar o modelo e os dados")
    written = events()
    say(first, written[:12])
    shown.shows("a decorrer")
    first.kill()
    first.wait()
    shown.shows("interrompido")
    second = worker(folder)
    say(second, written[12:45])
    shown.shows("a decorrer")
    shown.resize(40, 140)
    shown.shows("━" * 100)
    say(second, written[45:])
    second.communicate()
    assert shown.process.wait(timeout=60) == 0
    assert "60 / 60" in shown.text.rsplit("\x1b[?1049l", 1)[1]  # left on the ordinary screen


def test_without_runs_it_says_how_to_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("farense_qlora.training.run.RUNS", tmp_path)
    with pytest.raises(UserError, match=r"«farense-qlora train» começa um$"):
        newest()


def test_ctrl_c_leaves_only_the_monitor(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints_qlora" / "vivo"
    write_run(folder, events()[:30])
    training = worker(folder)
    try:
        shown = terminal()
        shown.shows("a decorrer")
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(timeout=60) == 0 and "Traceback" not in shown.text
        assert training.poll() is None and not (folder / "stop").exists()
    finally:
        training.kill()
        training.wait()


@pytest.mark.parametrize(("width", "height"), [(40, 20), (80, 24), (140, 40)])
@pytest.mark.parametrize("count", [0, 1, 2, 30, 70])
def test_a_screen_is_never_wider_nor_higher_than_the_terminal(
    tmp_path: Path, width: int, height: int, count: int
) -> None:
    run: Run = write_run(tmp_path / ("nome-comprido-" * 6), events()[:count])
    console = Console(width=width, height=height, file=StringIO(), force_terminal=True)
    lines = console.render_lines(screen(overview(run), run.events(), width, height), pad=False)
    assert max(sum(segment.cell_length for segment in line) for line in lines) <= width
    assert len(lines) <= height or width < 80
    frame = [text for line in lines if "┐" in (text := "".join(segment.text for segment in line))]
    assert [len(line.rstrip()) for line in frame] == [width] * (count > 1)


def test_a_restart_is_told_with_its_cause(tmp_path: Path) -> None:
    died = Restarted(step=20, time=0.0, cause="faltou memória", pause=0, splits=1)
    run = write_run(tmp_path / "r", [*events()[:30], died, replace(events()[0], step=20)])
    text = StringIO()
    console = Console(width=100, height=24, file=text)
    console.print(screen(overview(run), run.events(), 100, 24))
    assert "o processo que treina acabou (faltou memória) e recomeça" in text.getvalue()
