"""Where MLX computes on a CPU, numbers too small to matter cost nothing."""

import platform
import sys

import mlx.core as mx
import numpy as np
import pytest

from farense_qlora.model.cpu.parallel import streams


@pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="an x86-64 matter")
def test_numbers_next_to_zero_are_zero_where_mlx_computes_and_nowhere_else() -> None:
    tiny = np.float32(1e-30) * np.float32(1e-10)
    assert tiny > 0
    for stream in [mx.default_stream(mx.cpu), *streams()]:
        assert mx.multiply(mx.array([1e-30]), 1e-10, stream=stream).item() == 0
