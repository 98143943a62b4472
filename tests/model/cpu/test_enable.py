"""Nothing of the machinery for the CPU starts before it is asked to; then MLX multiplies through OpenBLAS."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

ON_LINUX = pytest.mark.skipif(sys.platform != "linux" or not find_spec("scipy_openblas32"), reason="Linux")
QUIET = """
import os, subprocess, sys
started, popen = [], subprocess.Popen
subprocess.Popen = lambda *command, **_: started.append(command)
import farense_qlora, farense_qlora.model, farense_qlora.model.cpu
import farense_qlora.training, farense_qlora.answers, farense_qlora.exporting, farense_qlora.serving
import farense_qlora.cli, farense_qlora.ui
libraries = open("/proc/self/maps").read()
assert not started and len(os.listdir("/proc/self/task")) == 1, started
assert "mlx" not in sys.modules and "libmlx" not in libraries and "openblas" not in libraries
import farense_qlora.cli.commands, farense_qlora.training.worker, farense_qlora.training.fit
assert "mlx" not in sys.modules  # these enable it themselves before
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@ON_LINUX
def test_importing_starts_nothing_and_enabling_gives_a_fast_blas() -> None:
    run(
        QUIET
        + """
subprocess.Popen = popen
from farense_qlora.model import cpu
cpu.enable()
cpu.enable()
from farense_qlora.config import Config
from farense_qlora.model.base import load_base
from farense_qlora.model.machine import machine
load_base(Config())
assert "OpenBLAS" in machine().blas and machine().gflops > 5, machine()  # MLX's own: 1 to 4
"""
    )


@ON_LINUX
def test_a_model_that_is_loaded_without_it_warns_that_it_will_be_slow() -> None:
    run(
        """
import warnings
from farense_qlora.config import Config
from farense_qlora.model.base import load_base
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    load_base(Config())
assert len(caught) == 1 and "chame-a primeiro" in str(caught[0].message), caught
"""
    )


@ON_LINUX
def test_it_can_be_turned_off() -> None:
    run(
        """
import os
os.environ["FARENSE_BLAS"] = "off"
from farense_qlora.model import cpu
cpu.enable()
import mlx.core
assert "openblas" not in open("/proc/self/maps").read()
"""
    )
