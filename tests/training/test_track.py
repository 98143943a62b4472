"""What each tracker has of a run, read back by its own reader, is its history and its settings.

The trackers are no dependencies: `make trackers` installs them, and runs this.
"""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import FARENSE
from ui_events import events, write_run

from farense_qlora.cli import main
from farense_qlora.config import ROOT, Config
from farense_qlora.errors import UserError
from farense_qlora.training import track as module
from farense_qlora.training.event_log import EventWriter
from farense_qlora.training.events import Evaluated, Event, RolledBack, Stepped
from farense_qlora.training.run import Run
from farense_qlora.training.track import PROJECT, TRACKERS, track
from farense_qlora.training.worker import take_lock


@dataclass
class Copied:
    """What a tracker has: every value with its step and its name, and the settings."""

    values: list[tuple[int, str, float]]
    settings: dict[str, object]
    finished: bool = True


def in_tensorboard(output: Path, name: str) -> Copied:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    log = EventAccumulator(str(output / "tensorboard" / name), {"scalars": 0}).Reload()
    about = log.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    params = metadata.parse_session_start_info_plugin_data(about).hparams
    values = [(one.step, tag, one.value) for tag in log.Tags()["scalars"] for one in log.Scalars(tag)]
    return Copied(values, {key: getattr(one, str(one.WhichOneof("kind"))) for key, one in params.items()})


def in_mlflow(output: Path, name: str) -> Copied:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{output / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(PROJECT)
    [run] = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    series = [client.get_metric_history(run.info.run_id, key) for key in run.data.metrics]
    values = [(one.step, one.key, one.value) for each in series for one in each]
    return Copied(values, run.data.params, run.info.status == "FINISHED")


def in_wandb(output: Path, name: str) -> Copied:
    runs = [_wandb_records(folder) for folder in (output / "wandb").glob("offline-run-*")]
    [(about, records)] = [run for run in runs if run[0]["display_name"] == name]
    values = [
        (item["_step"], key, value)
        for record in records
        if (item := record.get("history", {}).get("item"))
        for key, value in item.items()
        if not key.startswith("_")
    ]
    settings = {key: value for key, value in about["config"]["update"].items() if key != "_wandb"}
    return Copied(values, settings, records[-1]["exit"].get("exit_code", 0) == 0)


def _wandb_records(folder: Path) -> tuple[dict, list[dict]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    return next(record["run"] for record in records if record["type"] == "run"), records


def in_trackio(output: Path, name: str) -> Copied:
    """By another process: one keeps to the folder that it was imported for."""
    ask = """import json, sys, trackio
from trackio.sqlite_storage import SQLiteStorage
[run] = [run for run in trackio.Api().runs(sys.argv[1]) if run.name == sys.argv[2]]
print(json.dumps([run.config, SQLiteStorage.get_logs(run.project, run_id=run.id)]))"""
    env = {**os.environ, "TRACKIO_DIR": str(output / "trackio")}
    command = [sys.executable, "-c", ask, PROJECT, name]
    settings, logs = json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    values = [(one.pop("step"), one.pop("timestamp"), one) for one in logs]
    settings = {key: value for key, value in settings.items() if not key.startswith("_")}
    return Copied([(step, key, value) for step, _, one in values for key, value in one.items()], settings)


READERS: dict[str, Callable[[Path, str], Copied]] = {
    "tensorboard": in_tensorboard,
    "mlflow": in_mlflow,
    "wandb": in_wandb,
    "trackio": in_trackio,
}


@pytest.fixture(params=READERS)
def to(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed: `make trackers` does it")
    return request.param


@pytest.fixture(autouse=True)
def output(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the copies of all these tests go, of a user who has set up none of the trackers."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.getbasetemp() / "user"))
    folder = tmp_path_factory.getbasetemp() / "output"
    monkeypatch.setattr(module, "OUTPUT", folder)
    monkeypatch.setenv(
        "TRACKIO_DIR", str(folder / "trackio")
    )  # read when it is imported, to see that it is there
    return folder


def agree(copied: Copied, run: Run) -> None:
    """Every number of the history stands in the copy, once."""
    history = {(step, name): value for step, name, value in long(run)}
    assert sorted((step, name) for step, name, _ in copied.values) == sorted(history)
    assert {(step, name): value for step, name, value in copied.values} == pytest.approx(history, rel=1e-6)


def long(run: Run) -> Iterator[tuple[int, str, float]]:
    return run.history.melt("step").dropna().itertuples(index=False, name=None)


def test_a_run_is_copied_whole_and_once_however_often(to: str, tmp_path: Path, output: Path) -> None:
    measured = [replace(one, general_loss=3.5) if isinstance(one, Evaluated) else one for one in events()]
    run = write_run(tmp_path / "ação", measured, rank=8, learning_rate=0.003)
    assert track(run, to) and track(run, to)
    copied = READERS[to](output, "ação")
    agree(copied, run)
    assert copied.finished and {"general_loss", "tokens_per_s", "grad_norm"} < {
        name for _, name, _ in copied.values
    }
    assert set(copied.settings) == set(Config.model_fields)
    assert float(copied.settings["rank"]) == 8 and float(copied.settings["learning_rate"]) == 0.003
    assert copied.settings["profile"] == "mini"


Act = Callable[[], object]


def between_looks(monkeypatch: pytest.MonkeyPatch, *acts: Act) -> list[str]:
    """Do one of `acts` whenever a run is waited for; what `live` is told goes to the list returned."""
    left = iter(acts)
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: next(left)()))
    return []


def append(run: Run, added: Sequence[Event]) -> None:
    with closing(EventWriter(run.folder)) as log:
        for event in added:
            log.write(event)


def steps(first: int, last: int, more: float) -> list[Event]:
    """The events of a run from one step to another, its losses so much larger than usual."""
    kept = [one for one in events()[:-1] if first <= one.step <= last]
    return [replace(one, loss=one.loss + more) if isinstance(one, Stepped) else one for one in kept]


def test_what_is_undone_while_a_run_is_followed_is_undone_in_its_copy(
    to: str, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lock = write_run(tmp_path / "vivo", steps(0, 30, 0)), take_lock(tmp_path / "vivo")
    assert lock is not None
    again = replace(events()[0], step=20)
    back = RolledBack(step=40, path="x", learning_rate=5e-4)
    told = between_looks(
        monkeypatch,
        lambda: append(run, [again, *steps(21, 45, 1)]),
        lambda: append(run, [*steps(46, 48, 1)]),
        lambda: append(run, [back, *steps(41, 60, 2), events()[-1]]),
        lock.close,
    )
    view = track(run, to, told.append)
    assert len(told) == 3 and told[-1] == view  # a copy at the start, and one whenever something was undone
    agree(READERS[to](output, "vivo"), run)


def test_a_tensorboard_that_is_open_forgets_what_was_undone(tmp_path: Path, output: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: `make trackers` does it")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = write_run(tmp_path / "aberto", steps(0, 30, 0))
    track(run, "tensorboard")
    shown = EventAccumulator(str(output / "tensorboard" / "aberto"), {"scalars": 0}).Reload()
    append(run, [replace(events()[0], step=20), *steps(21, 60, 1)])
    time.sleep(1)  # so that the new file comes after the one that is read
    track(run, "tensorboard")
    losses = [(one.step, one.value) for one in shown.Reload().Scalars("loss")]
    assert losses == [(step, pytest.approx(value)) for step, name, value in long(run) if name == "loss"]


def test_ctrl_c_leaves_what_was_written_whole_and_another_call_the_rest(
    to: str, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    run, lock = write_run(tmp_path / "vivo", events()[:1]), take_lock(tmp_path / "vivo")
    assert lock is not None
    with lock:
        told = between_looks(monkeypatch, lambda: append(run, steps(1, 30, 0)), ctrl_c)
        assert [track(run, to, told.append)] == told
        copied = READERS[to](output, "vivo")
        agree(copied, run)
        assert not copied.finished or to in ("tensorboard", "trackio")  # which know of no end
    append(run, [*steps(31, 60, 0), events()[-1]])
    track(run, to)
    agree(READERS[to](output, "vivo"), run)


def test_the_command_asks_nobody_sends_nothing_and_ends_well_with_ctrl_c(to: str, output: Path) -> None:
    run = write_run(output.parent / "checkpoints_qlora" / "vivo", events()[:40])
    lock, (terminal, end) = take_lock(run.folder), pty.openpty()
    assert lock is not None
    with (
        lock,
        socket.create_server(("127.0.0.1", 0)) as proxy,
        os.fdopen(terminal, "rb", buffering=0) as screen,
    ):
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), address)
        env = {**os.environ, **proxies, "NO_PROXY": "", "FARENSE_HOME": str(output.parent)}
        for name in ("TRACKIO_DIR", "CI", "PYTEST_CURRENT_TEST"):  # where the last two are, less is sent
            env.pop(name, None)
        command = [*FARENSE, "track", "--to", to, "--json"]
        process = subprocess.Popen(
            command, stdin=end, stdout=subprocess.PIPE, stderr=end, env=env, start_new_session=True, text=True
        )
        os.close(end)
        too_long, said = threading.Timer(60, process.kill), b""  # as when it waits for an answer
        too_long.start()
        while b"Para ver: " not in said or not said.endswith(b"\n"):
            said += screen.read(1000)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate()
        too_long.cancel()
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert process.returncode == 0 and json.loads(out)["view"] in said.decode()
    agree(READERS[to](output, "vivo"), run)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_library_that_is_missing_is_named_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [known for known in sys.modules if known.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        UserError, match=rf"falta {name}.* instale com «pip install 'farense-qlora\[{name}\]'»"
    ):
        track(write_run(tmp_path / "a", events()), name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert name in project["optional-dependencies"]


def test_a_tracker_that_refuses_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: `make trackers` does it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nada://aqui")
    with pytest.raises(UserError, match=r"^mlflow não aceitou o treino: .*nada://aqui"):
        track(write_run(tmp_path / "a", events()), "mlflow")


def test_bad_names_and_runs_that_have_not_begun_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError, match="não sei copiar um treino para «papel»: há tensorboard, mlflow, wandb, trackio"
    ):
        track(write_run(tmp_path / "a", events()), "papel")
    with pytest.raises(UserError, match="o treino «b» ainda não começou"):
        track(write_run(tmp_path / "b", []), "wandb")
    with pytest.raises(SystemExit):
        main(["track", "--help"])
    assert "tensorboard, mlflow, wandb ou trackio" in capsys.readouterr().out
