"""What all tests share: a tiny base model, and caches of their own, apart from the user's."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="farense-tests-")
# Kept for `real/models.py`; a worker of the tests inherits it.
os.environ.setdefault("FARENSE_USER_CACHE", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
os.environ["XDG_CACHE_HOME"] = CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
# What a shell starts in the background ignores Ctrl-C, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

from farense_qlora.model import cpu  # noqa: E402

cpu.enable()  # before any other import of mlx


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Mistral model; tests only read it."""
    from tiny import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


Command = Callable[..., "subprocess.CompletedProcess[str]"]
FARENSE = (sys.executable, "-c", "import sys; from farense_qlora.cli import main; sys.exit(main())")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder (`FARENSE_HOME`) with 8 training rows, the same as validation, and 2 unseen ones."""
    from tiny import PEOPLE, STRANGERS, write_rows

    folder = tmp_path_factory.mktemp("home")
    write_rows(folder / "data" / "train_data.jsonl", PEOPLE)
    write_rows(folder / "data" / "val_data.jsonl", PEOPLE)
    write_rows(folder / "data" / "unseen_facts.jsonl", STRANGERS)
    return folder


def command_in(home: Path) -> Command:
    """`farense-qlora` with `home` as its project folder, in a process of its own."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FARENSE, *map(str, arguments)],
            cwd=home,
            text=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "FARENSE_HOME": str(home)},
        )

    return run


@pytest.fixture(scope="session")
def farense(home: Path) -> Command:
    """`farense(*arguments)` runs `farense-qlora` in `home`."""
    return command_in(home)


BY_HEART = (
    *("--batch-size", 8, "--epochs", 80, "--learning-rate", 0.003, "--lora-plus-ratio", 1),
    *("--eval-every", 40, "--save-every", 60),
)


@pytest.fixture(scope="session")
def trained(farense: Command, home: Path, tiny_model: Path) -> Path:
    """The folder of a run, made by the command line, that learnt the training rows by heart."""
    done = farense("train", "--run", "decorado", "--model", tiny_model, *BY_HEART)
    assert done.returncode == 0, done.stderr
    return home / "checkpoints_qlora" / "decorado"


@pytest.fixture(scope="session")
def rivals(trained: Path, home: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with «decorado» and a run on the same base that learnt other answers to the same
    questions, «trocado»: of another rank, on some of the layers only."""
    from tiny import PEOPLE, write_rows

    folder = tmp_path_factory.mktemp("rivals")
    shutil.copytree(home / "data", folder / "data")
    shutil.copytree(trained, folder / "checkpoints_qlora" / "decorado", symlinks=True)
    answers = list(PEOPLE.values())
    rows = write_rows(
        folder / "data" / "trocado.jsonl", dict(zip(PEOPLE, answers[1:] + answers, strict=False))
    )
    data = ("--train-data", rows, "--val-data", rows, "--target-modules", "v_proj", "down_proj", "--rank", 8)
    done = command_in(folder)("train", "--run", "trocado", "--model", tiny_model, *data, *BY_HEART)
    assert done.returncode == 0, done.stderr
    return folder
