"""What makes MLX fast on a CPU, and the one switch that turns it on: `enable`.

Importing this package, or any other of ours, starts and changes nothing. On Linux MLX binds the BLAS that it
finds when it is first imported, so that whatever is an entry point (the command line, the worker, the front
door of the package, the tests) calls `enable()` before anything imports mlx. Loading a model calls
`enable(model)`, for the operations of that model. `FARENSE_BLAS=off` leaves MLX its own BLAS, and
`FARENSE_BLAS=<path>` names another than that of the wheel `scipy-openblas32`.
"""

import os
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING

from .blas import denormals_flushed, load_blas

if TYPE_CHECKING:
    from mlx import nn


def enable(model: "nn.Module | None" = None) -> None:
    """Give MLX a fast BLAS, if it has none yet, and `model` the operations that make use of it.

    Of the calls for the process the first counts. On a Mac MLX has a fast BLAS of its own; where it computes
    on a GPU `model` stays as it is. Nothing here is fatal: without a fast BLAS all runs, slowly, with a
    warning.
    """
    _enable_process()
    if model is not None:
        from ..machine import on_cpu
        from .ops import use_cpu_operations

        if on_cpu():
            use_cpu_operations(model)


@cache
def _enable_process() -> None:
    if sys.platform != "linux" or os.environ.get("FARENSE_BLAS") == "off":
        return
    if "mlx.core" in sys.modules:
        warnings.warn(
            "o mlx foi importado antes de farense_qlora.model.cpu.enable(): o cálculo na CPU fica lento; "
            "chame-a primeiro",
            stacklevel=3,
        )
        return
    with denormals_flushed():
        load_blas()
        import mlx.core as mx

        # Starts the thread that computes what is not on a stream of its own. To evaluate anything would fix,
        # before the model is known, how widely MLX looks for work: see ops.py.
        mx.synchronize()
