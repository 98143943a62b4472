"""All that the product does, on SmolLM2-135M: a handful of short rows, a few updates, every reader."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from conftest import FARENSE, Command
from faults.common import Result, result_of
from real.models import needs_smollm2, smollm2
from serving import serving
from tiny import PEOPLE, STRANGERS, write_rows
from train_here import kill

from farense_qlora.config import HOME, Config
from farense_qlora.training import run as run_module
from farense_qlora.training.event_log import replay
from farense_qlora.training.events import Finished, Saved
from farense_qlora.training.run import Run
from farense_qlora.training.start import start

pytestmark = needs_smollm2
UPDATES = 4
SETTINGS = {
    "rank": 4, "alpha": 8.0, "batch_size": 2, "max_seq_length": 64, "max_steps": UPDATES, "epochs": 9.0,
    "learning_rate": 2e-3, "dropout": 0.1, "eval_every": 2, "save_every": 1, "probes": 0,
}  # fmt: skip
SETS = {
    "perguntas por outras palavras": 2,
    "as mesmas, escritas à pressa": 2,
    "factos nunca vistos": 2,
}
READERS = {
    "mlx": (),
    "fused": (),
    "peft": ("peft", "torch"),
    "gguf": ("llama_cpp", "gguf"),
    "ollama": ("llama_cpp", "gguf"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with four rows, two of them as validation, and two unseen ones."""
    folder = tmp_path_factory.mktemp("real")
    some = [*PEOPLE.items()][:4]
    write_rows(folder / "data" / "train_data.jsonl", dict(some))
    write_rows(folder / "data" / "val_data.jsonl", dict(some[:2]))
    write_rows(folder / "data" / "unseen_facts.jsonl", STRANGERS)
    return folder


@pytest.fixture(scope="module")
def farense(home: Path) -> Command:
    """`farense(*arguments)` runs `farense-qlora` in `home`; what it writes is returned."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [*FARENSE, *map(str, arguments)],
            cwd=home,
            text=True,
            capture_output=True,
            env={**os.environ, "FARENSE_HOME": str(home)},
        )
        assert done.returncode == 0, done.stderr
        return done

    return run


def flags(settings: dict[str, object]) -> list[object]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture(scope="module")
def run(farense: Command, home: Path) -> Run:
    """A run of few updates, whole."""
    farense("train", "--run", "decorado", "--profile", "smollm2", "--model", smollm2(), *flags(SETTINGS))
    return Run(home / "checkpoints_qlora" / "decorado")


def test_the_doctor_passes_and_fit_says_what_an_update_takes(farense: Command) -> None:
    farense("doctor")
    said = farense("fit", "--profile", "smollm2", "--model", smollm2(), *flags(SETTINGS), "--json")
    found = json.loads(said.stdout)
    assert found["fits"] and 0.1 < found["trials"][0]["peak_gb"] < 8


def test_a_run_that_was_killed_and_taken_up_again_ends_with_the_same_bits(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    broken = start(run.config.changed(**rows_of(home)), "partido")
    for event in broken.follow():
        if isinstance(event, Saved) and event.step == UPDATES // 2:
            kill(broken)
            break
    again = start(broken.config, "partido")
    again.wait()
    assert whole(again) == whole(run)


def rows_of(home: Path) -> dict[str, str]:
    return {f"{part}_data": str(home / "data" / f"{part}_data.jsonl") for part in ("train", "val")}


def whole(run: Run) -> Result:
    events = replay(run.events())
    end = events[-1]
    assert isinstance(end, Finished) and (end.step, end.reason) == (UPDATES, "completed")
    return result_of(run.folder, events, UPDATES)


def test_it_learns_answers_and_is_evaluated_beside_its_base(farense: Command, run: Run) -> None:
    losses = [row["val_loss"] for _, row in run.history.iterrows() if row["val_loss"] == row["val_loss"]]
    assert losses[-1] < losses[0]
    found = json.loads(farense("evaluate", "--run", run.name, "--base", "--json").stdout)
    assert {one["name"]: one["count"] for one in found["after"]} == SETS
    assert [one["name"] for one in found["before"]] == [*SETS]
    before, after = ([one["answers"] for one in found[when]] for when in ("before", "after"))
    assert before != after
    answer = json.loads(farense("ask", "Hassan: quem foi?", "--run", run.name, "--json").stdout)
    assert answer["status"] == "ok" and answer["response"].strip()


@pytest.fixture(scope="module")
def exported(farense: Command, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in every format whose reader is installed, a folder each."""
    folder = tmp_path_factory.mktemp("exported")
    formats = [name for name, modules in READERS.items() if all(map(find_spec, modules))]
    farense("export", "--run", run.name, "--to", folder, "--format", *formats)
    return folder


@pytest.mark.parametrize("format", READERS)
def test_every_export_is_read_by_its_own_tool_as_the_trained_model(exported: Path, format: str) -> None:
    if missing := [name for name in READERS[format] if find_spec(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: make consumers")
    found = json.loads((exported / format / "verification.json").read_text(encoding="utf-8"))
    assert found["passed"] and found["same_prompts"] == 1.0 and found["questions"] == 2
    assert found["kl"] < 0.1 * found["kl_base"]
    assert format != "ollama" or "<|im_start|>" in (exported / format / "Modelfile").read_text()


def test_it_is_served(run: Run, home: Path, tmp_path: Path) -> None:
    asked = {
        "messages": [{"role": "user", "content": "Hassan: quem foi?"}],
        "max_tokens": 8,
        "temperature": 0,
    }
    with serving(home, tmp_path / "log") as served:
        request = urllib.request.Request(
            f"{served.url}/v1/chat/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            body = json.load(response)
    assert body["choices"][0]["message"]["content"].strip()
    assert 30 < body["usage"]["prompt_tokens"] < 64


def test_the_notebook_runs_from_top_to_bottom(home: Path, tmp_path: Path) -> None:
    mine = tmp_path / "home"
    shutil.copytree(home / "data", mine / "data")
    shutil.copytree(HOME / "data" / "facts", mine / "data" / "facts")
    notebook = HOME / "notebooks" / "mistral_qlora_training.ipynb"
    settings = {f"FARENSE_{name.upper()}": str(value) for name, value in SETTINGS.items()}
    done = subprocess.run(
        [sys.executable, HOME / "notebooks" / "headless.py", notebook, tmp_path / "out"],
        env={
            **os.environ,
            **settings,
            "FARENSE_HOME": str(mine),
            "FARENSE_PROFILE": "smollm2",
            "FARENSE_MODEL": str(smollm2()),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (mine / "checkpoints_qlora").glob("smollm2-*")
    assert Run(folder).config == Config.of("smollm2", model=str(smollm2()), **SETTINGS)
    cells = [cell for cell in nbformat.read(tmp_path / "out" / notebook.name, 4).cells if cell.get("outputs")]
    assert "134,5 milhões" in json.dumps(cells, ensure_ascii=False)
