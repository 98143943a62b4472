"""Run the pages: every shell and Python block, in order, in a scratch copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pages import ROOT, blocks, pages, tracked

WHOLE = "farense-qlora train --profile mini --run demo"  # the one preparation that takes minutes
SECONDS = 900  # for one block, on a machine with two cores and other work
BEFORE = re.compile(r"<!-- antes: (.+) -->")
SKIP = re.compile(r"<!-- (?:não corre|not run): (.+) -->")
OUTPUT = re.compile(r"<!-- saída: (.+) -->")


def check_blocks(only: str = "", trained: Path | None = None) -> Iterator[str]:
    """Blocks that fail and outputs that differ, in the pages with `only` in their name.

    `trained` is the folder of a run as `WHOLE` makes it: where it is there, that command has no more to do.
    """
    todo = {page: text for page, text in pages().items() if only in page}
    with tempfile.TemporaryDirectory(prefix="docs-") as root, ThreadPoolExecutor(2) as pool:
        copies = {"": _repository(Path(root) / "limpo")}
        for command in sorted({before for text in todo.values() for before in BEFORE.findall(text)}):
            copies[command] = Path(root) / f"preparado-{len(copies)}"
            shutil.copytree(copies[""], copies[command], symlinks=True)
            if command == WHOLE and trained and trained.is_dir():
                shutil.copytree(trained, copies[command] / "checkpoints_qlora" / "demo", symlinks=True)
            done = _shell(command, copies[command])
            if done.returncode:
                yield f"«{command}» acabou com {done.returncode}: {_tail(done)}"

        def run(page: str) -> list[str]:
            before = BEFORE.search(todo[page])
            folder = Path(root) / page.replace("/", "-")
            shutil.copytree(copies[before[1] if before else ""], folder, symlinks=True)
            try:
                return list(_run(page, todo[page], folder))
            except subprocess.TimeoutExpired as error:
                return [f"{page}: {error}"]

        for problems in pool.map(run, todo):
            yield from problems


def _run(page: str, text: str, folder: Path) -> Iterator[str]:
    """Run the shell blocks in order, compare the outputs, and run all the Python as one program."""
    program = ""
    for block in blocks(text):
        if SKIP.fullmatch(block.above):
            continue
        if shown := OUTPUT.fullmatch(block.above):
            done = _shell(shown[1], folder)
            if done.stdout.strip() != block.text.strip():
                yield f"{page}:{block.line}: «{shown[1]}» escreve outra coisa: {_tail(done)}"
        elif block.language in ("sh", "bash"):
            done = _shell(block.text, folder)
            if done.returncode:
                yield f"{page}:{block.line}: acabou com {done.returncode}: {_tail(done)}"
                return
        elif block.language == "python":
            program += block.text
    if program:
        done = _execute(["python", "-c", program], folder)
        if done.returncode:
            yield f"{page}: Python: {_tail(done)}"


def _repository(folder: Path) -> Path:
    for path in tracked():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (folder / ".venv").symlink_to(sys.prefix)
    for name in ("requirements.lock", "pyproject.toml"):  # older than the set-up: make leaves it alone
        os.utime(folder / name, (0, 0))
    return folder


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return _execute(["bash", "-euo", "pipefail", "-c", command], folder)


def _execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` in the copy `folder`, as a user would there."""
    environment = {
        **os.environ,
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FARENSE_HOME": str(folder),
        "COLUMNS": "100",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " | ".join(lines[-3:]) or "sem saída"
