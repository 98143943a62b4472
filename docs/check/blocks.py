"""Run the pages: every shell and Python block, in order, in a scratch copy of the repository."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copy2, copytree

from pages import ROOT, blocks, pages, tracked

WHOLE = "farense-qlora train --profile mini --run demo"  # the one preparation that takes minutes
SECONDS = 900  # for one block, on a machine with two cores and other work
SHELL, PYTHON = ("bash", "-euo", "pipefail", "-c"), ("python", "-c")
BEFORE = re.compile(r"<!-- antes: (.+) -->")
SKIP = re.compile(r"<!-- (?:não corre|not run): .+ -->")
OUTPUT = re.compile(r"<!-- saída: (.+) -->")


def check_blocks(only: str = "", trained: Path | None = None) -> Iterator[str]:
    """Blocks that fail and outputs that differ, in the pages with `only` in their name.

    `trained` is the folder of a run as `WHOLE` makes it: where it is there, that command has no more to do.
    """
    todo = {page: text for page, text in pages().items() if only in page}
    before = {page: found[1] if (found := BEFORE.search(text)) else "true" for page, text in todo.items()}
    with tempfile.TemporaryDirectory(prefix="docs-") as root, ThreadPoolExecutor(2) as pool:
        clean, prepared = _repository(Path(root, "limpo")), {}
        for command in sorted(set(before.values())):
            prepared[command] = copytree(clean, Path(root, f"preparado-{len(prepared)}"), symlinks=True)
            if command == WHOLE and trained and trained.is_dir():
                copytree(trained, prepared[command] / "checkpoints_qlora" / "demo", symlinks=True)
            done = _execute(prepared[command], *SHELL, command)
            if done.returncode:
                yield f"«{command}» acabou com {done.returncode}: {_tail(done)}"
        for problems in pool.map(lambda page: [*_run(page, todo[page], prepared[before[page]])], todo):
            yield from problems


def _run(page: str, text: str, prepared: Path) -> Iterator[str]:
    """Run the shell blocks in order, compare the outputs, and run all the Python as one program."""
    folder = copytree(prepared, prepared.with_name(page.replace("/", "-")), symlinks=True)
    program = ""
    for block, above in blocks(text):
        where = f"{page}:{block.map[0] + 1}"
        if shown := OUTPUT.fullmatch(above):
            done = _execute(folder, *SHELL, shown[1])
            if done.stdout.strip() != block.content.strip():
                yield f"{where}: «{shown[1]}» escreve outra coisa: {_tail(done)}"
        elif block.info in ("sh", "bash") and not SKIP.fullmatch(above):
            done = _execute(folder, *SHELL, block.content)
            if done.returncode:
                yield f"{where}: acabou com {done.returncode}: {_tail(done)}"
                return
        elif block.info == "python" and not SKIP.fullmatch(above):
            program += block.content
    done = _execute(folder, *PYTHON, program)
    if done.returncode:
        yield f"{page}: Python: {_tail(done)}"


def _repository(folder: Path) -> Path:
    for path in tracked():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy2(path, copy)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("requirements.lock", "pyproject.toml"):  # older than the set-up: make leaves it alone
        os.utime(folder / name, (0, 0))
    return folder


def _execute(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run `command` in the copy `folder`, as a user would there."""
    environment = os.environ | {
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FARENSE_HOME": str(folder),
        "COLUMNS": "100",
    }
    options = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": SECONDS}
    try:
        return subprocess.run(command, **options, check=False)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 124, "", str(error))


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " | ".join(lines[-3:]) or "sem saída"
