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
from threading import Lock

from pages import OUTPUT, ROOT, SKIP, Block, blocks, named, pages, text

SHELLS = ("sh", "bash")
SECONDS = 900  # for one block, on a machine with two cores and other work
BEFORE = re.compile(r"<!-- antes: (.+) -->")


class Scratch:
    """Copies of the repository's files for the pages; what is to be run before a page is run once."""

    def __init__(self, folder: Path):
        self._folder, self._lock, self._made = folder, Lock(), dict[tuple[str, ...], Path]()
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "100",
        }

    def copy(self, name: str, before: tuple[str, ...]) -> Path:
        """A folder called `name` with the repository as the commands `before` leave it."""
        with self._lock:
            source = self._prepared(before)
        target = self._folder / name
        shutil.copytree(source, target, symlinks=True)
        return target

    def run(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run `command` in the copy `folder`, as a user would there."""
        environment = {**self.environment, "FARENSE_HOME": str(folder), "PYTHONPATH": str(folder / "src")}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def _prepared(self, before: tuple[str, ...]) -> Path:
        if before in self._made:
            return self._made[before]
        source = self._prepared(before[:-1]) if before else None
        folder = self._folder / f"preparado-{len(self._made)}"
        if source:
            shutil.copytree(source, folder, symlinks=True)
            done = self.run(["bash", "-euo", "pipefail", "-c", before[-1]], folder)
            if done.returncode:
                raise RuntimeError(f"«{before[-1]}» acabou com {done.returncode}: {_tail(done)}")
        else:
            self._repository(folder)
        self._made[before] = folder
        return folder

    def _repository(self, folder: Path) -> None:
        listed = subprocess.check_output(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
        )
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        (folder / ".venv").symlink_to(sys.prefix)
        for name in ("requirements.lock", "pyproject.toml"):  # older than the set-up: make leaves it alone
            os.utime(folder / name, (0, 0))


def check_blocks(only: str = "") -> Iterator[str]:
    """Blocks that fail, and shell blocks that say neither how nor why not to run them."""
    with tempfile.TemporaryDirectory(prefix="docs-") as folder, ThreadPoolExecutor(2) as pool:
        scratch = Scratch(Path(folder))
        chosen = [page for page in pages() if only in named(page)]
        for problems in pool.map(lambda page: list(_run_page(page, scratch)), chosen):
            yield from problems


def _run_page(page: Path, scratch: Scratch) -> Iterator[str]:
    """Run the shell blocks of `page` in order, compare its outputs, and run all its Python as one program."""
    todo = [block for block in blocks(page) if _runs(block)]
    if not todo:
        return
    try:
        folder = scratch.copy(named(page).replace("/", "-"), tuple(BEFORE.findall(text(page))))
        for block in todo:
            if block.language in SHELLS:
                done = scratch.run(["bash", "-euo", "pipefail", "-c", block.text], folder)
                if done.returncode:
                    yield f"{named(page)}:{block.line}: acabou com {done.returncode}: {_tail(done)}"
                    return
            elif shown := OUTPUT.fullmatch(block.above):
                done = scratch.run(["bash", "-euo", "pipefail", "-c", shown[1]], folder)
                if done.stdout.strip() != block.text.strip():
                    yield f"{named(page)}:{block.line}: «{shown[1]}» escreve outra coisa: {_tail(done)}"
        program = "\n".join(block.text for block in todo if block.language == "python")
        if program:
            done = scratch.run(["python", "-c", program], folder)
            if done.returncode:
                yield f"{named(page)}: Python: {_tail(done)}"
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        yield f"{named(page)}: {error}"


def _runs(block: Block) -> bool:
    if SKIP.fullmatch(block.above):
        return False
    return block.language in (*SHELLS, "python") or OUTPUT.fullmatch(block.above) is not None


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " | ".join(lines[-3:]) or "sem saída"
