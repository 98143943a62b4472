"""What `watch` shows is a function of the events; in a notebook it leaves the last state behind."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from queue import Empty

import ipykernel
import nbformat
import pytest
from headless import main
from jupyter_client import KernelClient
from jupyter_client.manager import run_kernel
from ui_events import events, sampled, write_run

from farense_qlora.training.events import Event, Failed, Restarted, Skipped, Spiked, Stepped
from farense_qlora.training.requests import read_requests, stops_asked
from farense_qlora.ui.live import samples, state

WATCH = """
from pathlib import Path
from farense_qlora.training.run import Run
from farense_qlora.ui.live import watch
"""
WATCHING = "await watch(Run(Path.cwd()))"
# A worker that holds the lock of its run folder until someone asks it to stop.
WORKER = """
import fcntl, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
lock = open(folder / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("ready", flush=True)
while not (folder / "stop").exists():
    time.sleep(0.05)
"""
# One that works for five seconds, quickly, from when it is watched.
BUSY = """
import fcntl, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
lock = open(folder / "lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("ready", flush=True)
time.sleep(10)
with open(folder / "events.jsonl", "a") as file:
    for line in (LINES * 2)[:100]:
        file.write(line + "\\n")
        file.flush()
        time.sleep(0.05)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", WORKER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield
    process.kill()
    process.wait()


def outputs_of(folder: Path, written: list[Event], *code: str) -> tuple[int, list[nbformat.NotebookNode]]:
    """The exit code and the outputs of a notebook cell that watches a run with the events `written`."""
    write_run(folder, written)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join([WATCH, *code]))])
    nbformat.write(book, folder / "n.ipynb")
    exit_code = main(folder / "n.ipynb", folder / "out")
    outputs = nbformat.read(folder / "out" / "n.ipynb", 4).cells[0].outputs
    return exit_code, [out.data for out in outputs if "data" in out]


def watched(folder: Path, written: list[Event], *code: str) -> tuple[int, str]:
    """The exit code and the HTML of such a notebook."""
    exit_code, outputs = outputs_of(folder, written, *code)
    return exit_code, "".join(data.get("text/html", "") for data in outputs)


def test_what_happened_stands_under_the_numbers() -> None:
    trouble = [
        Skipped(step=7, time=0.0, epoch=0.3, cause="a perda não é um número", rows=("a:1",)),
        Spiked(step=9, time=0.0, loss=8.0, bound=2.0),
    ]
    shown = state([*events()[:30], *trouble], alive=True)
    assert "passo 7 saltado" in shown and "perda fora do comum" in shown and "A decorrer: " in shown
    died = Restarted(step=20, time=0.0, cause="faltou memória", pause=0, splits=1)
    again = replace(events()[0], step=20)
    shown = state([*events()[:30], died, again], alive=True)
    assert "acabou (faltou memória) e recomeça do ponto de controlo do passo 20, com micro-lotes" in shown
    assert "<li>" not in state(events())


def test_before_the_first_update_there_is_a_table_without_numbers() -> None:
    shown = state(events()[:1], alive=True, whole=True)
    assert "0 / 60" in shown and "faltam" not in shown


def test_two_or_three_numbers_are_large_and_the_others_wait_until_asked_for() -> None:
    asked = [*events()[:40], sampled(20, "paco fortes", "Y")]
    shown = state(asked, alive=True)
    assert "perda de validação" in shown and "1 em 2" in shown and "tokens/s" not in shown
    assert "tokens/s" in state(asked, alive=True, whole=True)
    ended = state(events())
    assert ended.index("<details>") < ended.index("tokens/s")


def test_the_outcome_stands_above_the_numbers() -> None:
    assert "Treino terminado (0 min 30 s). Melhor perda de validação: 0,500 (passo 60)." in state(events())
    stopped = state(events(30, "stopped"))
    assert "parado a pedido" in stopped and "tempo que falta" not in stopped


def test_the_probes_show_the_first_answers_beside_the_last() -> None:
    asked = [
        sampled(0, "Não sei.", "Em 1980."),
        sampled(20, "X", "Y"),
        sampled(40, "paco fortes", "Em 1980."),
    ]
    table = samples([*events(), *asked])
    assert table is not None and [*table.columns[2:]] == ["No passo 0", "No passo 40"]
    first, second = table.cells()
    assert first[2:] == ["✗ Não sei.", "✓ paco fortes"] and second[2:] == ["✗ Em 1980.", "✗ Em 1980."]
    at_first = samples([*events(), asked[0]])
    assert at_first is not None and [*at_first.columns] == ["Pergunta", "Resposta certa", "No passo 0"]
    assert samples(events()) is None


def test_a_watched_run_leaves_a_plain_picture_numbers_and_answers_and_no_controls(tmp_path: Path) -> None:
    written = [*events()[:-1], sampled(0, "Não sei.", "Em 1980."), events()[-1]]
    code, outputs = outputs_of(tmp_path, written, WATCHING)
    pictures = [data for data in outputs if "image/png" in data]
    html = "".join(data.get("text/html", "") for data in outputs)
    assert code == 0 and len(pictures) == 1 and "text/html" not in pictures[0]
    assert "60 / 60" in html and "Treino terminado" in html and "<td>✗ Não sei.</td>" in html
    assert "<img" not in html and not any("widget" in kind for data in outputs for kind in data)


def test_after_a_restart_the_newest_run_is_shown_without_being_named(tmp_path: Path) -> None:
    here = "import farense_qlora.training.run as run; run.RUNS = Path.cwd().parent"
    code, html = watched(tmp_path / "um", events(), here, "await watch()")
    assert code == 0 and "60 / 60" in html


@pytest.mark.usefixtures("worker")
def test_an_interruption_stops_the_run_and_waits_for_it(tmp_path: Path) -> None:
    interrupt = (
        "import os, signal, threading\nthreading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()"
    )
    code, html = watched(tmp_path, events(30, "stopped"), interrupt, WATCHING)
    assert code == 0 and (tmp_path / "stop").exists()
    assert "30 / 60" in html and "parado a pedido e guardado" in html


class Page:
    """What a browser does with the widgets of a running cell: learns of them, clicks, types.

    JupyterLab sends what is clicked to a `subshell` of kernels that have them, other front ends do not.
    """

    def __init__(self, client: KernelClient, code: str, subshell: bool = False):
        self._client, self._comms = client, dict[str, str]()
        self._header: dict[str, str] = {}
        self.pictures = 0
        if subshell:
            client.control_channel.send(client.session.msg("create_subshell_request"))
            self._header = {"subshell_id": client.get_control_msg(timeout=30)["content"]["subshell_id"]}
        self.said = list[str]()
        self.ended = False
        self._cell = client.execute(code)

    def hear(self, until: Callable[[], bool]) -> None:
        """Take what the kernel publishes until something is so, or for two minutes (a busy machine)."""
        deadline = time.monotonic() + 120
        while not until():
            assert time.monotonic() < deadline
            try:
                message = self._client.get_iopub_msg(timeout=0.1)
            except Empty:
                continue
            content = message["content"]
            new = content.get("data", {}).get("state", {})
            if message["msg_type"] == "comm_open":
                self._comms[new.get("description") or new.get("_model_name")] = content["comm_id"]
            if isinstance(new.get("value"), str):
                self.said.append(new["value"])
            if message["msg_type"] == "update_display_data":
                self.pictures += "image/png" in content["data"]
            own = message["parent_header"].get("msg_id") == self._cell
            self.ended |= own and content.get("execution_state") == "idle"

    def shows(self, name: str) -> bool:
        return name in self._comms

    def click(self, name: str) -> None:
        self._send(name, {"method": "custom", "content": {"event": "click"}})

    def type(self, name: str, value: str) -> None:
        self._send(name, {"method": "update", "state": {"value": value}, "buffer_paths": []})

    def _send(self, name: str, data: dict[str, object]) -> None:
        content = {"comm_id": self._comms[name], "data": data}
        message = self._client.session.msg("comm_msg", content)
        message["header"].update(self._header)
        self._client.shell_channel.send(message)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("subshell", [False, True], ids=["shell", "subshell"])
def test_every_control_acts_while_the_cell_runs(tmp_path: Path, subshell: bool) -> None:
    if ipykernel.version_info[:2] < (7, 4) and not subshell:
        pytest.skip("ipykernel 7.1 to 7.3 hears only its subshells while a cell runs")
    write_run(tmp_path, events(30, "stopped"))
    with run_kernel(cwd=str(tmp_path)) as client:
        page = Page(client, f"{WATCH}\n{WATCHING}", subshell)
        page.hear(lambda: page.shows("Aplicar"))
        page.click("Pausar")
        page.hear((tmp_path / "pause").exists)
        page.click("Guardar agora")
        page.hear((tmp_path / "save").exists)
        page.hear(lambda: page.shows("Taxa de aprendizagem"))
        page.type("Taxa de aprendizagem", "7")
        page.click("Aplicar")
        page.hear(lambda: any("learning_rate" in text for text in page.said))
        assert not (tmp_path / "learning_rate").exists()
        page.type("Taxa de aprendizagem", "0,0005")
        page.click("Aplicar")
        page.hear((tmp_path / "learning_rate").exists)
        page.click("Pausar")
        page.hear(lambda: not (tmp_path / "pause").exists())
        asked, stops = read_requests(tmp_path), stops_asked(tmp_path)
        page.click("Parar")
        page.hear(lambda: page.ended)
    assert (asked.save, asked.learning_rate, stops) == (True, 5e-4, 0)
    assert (tmp_path / "stop").exists()


def test_it_draws_at_most_twice_a_second_and_in_place(tmp_path: Path) -> None:
    """A worker writes an update every twentieth of a second for five seconds."""
    write_run(tmp_path, events()[:2])
    lines = [event.to_json() for event in events() if isinstance(event, Stepped)]
    code = BUSY.replace("LINES", repr(lines))
    with run_kernel(cwd=str(tmp_path)) as client:
        busy = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
        assert busy.stdout is not None and busy.stdout.readline() == b"ready\n"
        page = Page(client, f"{WATCH}\n{WATCHING}")
        page.hear(lambda: page.ended)
        busy.wait()
    assert 2 <= page.pictures <= 2 * 5 + 2


LITTLE_MEMORY = "import farense_qlora.ui.live as live\nlive.memory_limit = lambda: 10**8"


def test_a_run_that_is_foretold_not_to_fit_says_so_when_it_begins(tmp_path: Path) -> None:
    _, html = watched(tmp_path, [], LITTLE_MEMORY, WATCHING)
    assert "não cabe na memória desta máquina (previsão de " in html


def test_a_run_that_fails_is_shown_as_far_as_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [*events(30)[:-1], Failed(step=30, time=0.0, message="o disco está cheio")]
    code, html = watched(tmp_path, failed, LITTLE_MEMORY, WATCHING)
    assert "não cabe" not in html  # it has begun, and speaks for itself
    assert code == 2 and capsys.readouterr().err == "erro: o disco está cheio\n"
    assert "30 / 60" in html
