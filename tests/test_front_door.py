"""`import farense_qlora as fq` costs nothing until a name is used; every name has an example, which runs."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import farense_qlora as fq

IMPORTED = """
import sys, time
start = time.perf_counter()
import farense_qlora as fq
seconds = time.perf_counter() - start
import threading
from pathlib import Path
assert seconds < 0.1, seconds
assert threading.active_count() == 1
heavy = {"mlx", "mlx_lm", "numpy", "pandas", "transformers", "matplotlib", "datasets", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
maps = Path("/proc/self/maps")
assert not maps.exists() or "openblas" not in maps.read_text().lower()
assert set(fq.__all__) <= set(dir(fq))
"""


def test_the_import_is_instant_and_starts_and_loads_nothing() -> None:
    subprocess.run([sys.executable, "-c", IMPORTED], check=True)


def test_the_index_of_the_documentation_says_the_version_and_its_date() -> None:
    index = (Path(__file__).parents[1] / "DOCS_INDEX.md").read_text(encoding="utf-8")
    assert re.search(
        rf"^Versão {re.escape(version('farense-qlora'))}, de \d+ de \w+ de \d{{4}}\.$", index, re.M
    )


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fq, "nada")


def test_every_name_has_an_example_that_runs(home: Path, trained: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(home, tmp_path / "home", symlinks=True)  # they leave files in it
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("examples.py"), trained.name],
        env={**os.environ, "FARENSE_HOME": str(mine)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
