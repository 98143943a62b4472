"""What `watch` shows is a function of the events; in a notebook it leaves the last state behind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import run_kernel
from ui_events import events

from farense_qlora.training.events import Event, Failed
from farense_qlora.ui.headless import main
from farense_qlora.ui.live import duration, figures, state

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


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", WORKER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield
    process.kill()
    process.wait()


def watched(folder: Path, written: list[Event], *code: str) -> tuple[int, str]:
    """The exit code and the HTML of a notebook that watches a run with the events `written`."""
    (folder / "events.jsonl").write_text("".join(event.to_json() + "\n" for event in written))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join([WATCH, *code]))])
    nbformat.write(book, folder / "n.ipynb")
    exit_code = main(folder / "n.ipynb", folder / "out")
    done = nbformat.read(folder / "out" / "n.ipynb", 4)
    return exit_code, "".join(out.data["text/html"] for out in done.cells[0].outputs if "data" in out)


def test_the_numbers_beside_the_curves_are_those_of_the_last_events() -> None:
    shown = figures(events()[:42])
    assert shown["passo"].endswith("/ 60") and shown["tokens/s"] == "600"
    assert shown["memória máxima"] == "250,0 MB"
    assert shown["tempo que falta"] == duration((60 - int(shown["passo"].split(" ")[0])) * 0.5)


def test_nothing_is_shown_before_the_first_update() -> None:
    assert figures(events()[:1]) == {}
    assert "<img" in state(events()[:1])


def test_the_outcome_stands_under_the_last_picture() -> None:
    assert "Treino terminado, em 0 min 31 s. Melhor perda de validação: 0,500 (passo 60)." in state(events())
    stopped = state(events(30, "stopped"))
    assert "parado a pedido" in stopped and "tempo que falta" not in stopped


def test_a_watched_run_leaves_its_last_picture_and_no_button(tmp_path: Path) -> None:
    code, html = watched(tmp_path, events(), WATCHING)
    assert code == 0 and html.count("<img") == 1
    assert "60 / 60" in html and "Treino terminado" in html


@pytest.mark.usefixtures("worker")
def test_an_interruption_stops_the_run_and_waits_for_it(tmp_path: Path) -> None:
    interrupt = (
        "import os, signal, threading\nthreading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()"
    )
    code, html = watched(tmp_path, events(30, "stopped"), interrupt, WATCHING)
    assert code == 0 and (tmp_path / "stop").exists()
    assert "30 / 60" in html and "parado a pedido e guardado" in html


@pytest.mark.usefixtures("worker")
def test_the_button_stops_the_run_while_the_cell_runs(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("".join(event.to_json() + "\n" for event in events(30, "stopped")))
    with run_kernel(cwd=str(tmp_path)) as client:
        running = client.execute(f"{WATCH}\n{WATCHING}")
        while True:
            message = client.get_iopub_msg(timeout=30)
            state = message["content"].get("data", {}).get("state", {})
            if message["msg_type"] == "comm_open" and state.get("_model_name") == "ButtonModel":
                button = message["content"]["comm_id"]
            if message["msg_type"] == "display_data" and "widget-view" in str(message["content"]):
                click = {"method": "custom", "content": {"event": "click"}}
                content = {"comm_id": button, "data": click}
                client.shell_channel.send(client.session.msg("comm_msg", content))
            if (
                message["content"].get("execution_state") == "idle"
                and message["parent_header"]["msg_id"] == running
            ):
                break
    assert (tmp_path / "stop").exists()


def test_a_run_that_fails_is_shown_as_far_as_it_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [*events(30)[:-1], Failed(30, 0.0, "o disco está cheio")]
    code, html = watched(tmp_path, failed, WATCHING)
    assert code == 2 and capsys.readouterr().err == "erro: o disco está cheio\n"
    assert "30 / 60" in html
