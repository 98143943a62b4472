"""`make mini` computes with the fast BLAS, without which it takes a day and ends with other bits."""

import subprocess
import sys

import pytest

from farense_qlora.config import ROOT
from farense_qlora.model.machine import on_cpu


@pytest.mark.skipif(sys.platform != "linux" or not on_cpu(), reason="a matter of Linux on the CPU")
def test_the_script_enables_the_cpu_before_mlx() -> None:
    code = "import build; from farense_qlora.model.cpu.blas import blas_name; print(blas_name())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT / "data" / "miniature",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("OpenBLAS")
