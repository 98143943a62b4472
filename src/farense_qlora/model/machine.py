"""What this computer is: processor, memory, versions, MLX's device and how fast it multiplies."""

import platform
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlx.core as mx
import psutil  # type: ignore[import-untyped]

from .cpu.blas import blas_name, cores


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One computer; `gflops` is the measured rate of a float32 matrix product of 1024 x 1024."""

    system: str
    chip: str
    cores: int
    memory_gb: float
    device: str
    blas: str
    gflops: float
    python: str
    mlx: str
    mlx_lm: str


def machine() -> Machine:
    """Look at this computer; takes a fraction of a second."""
    macos = platform.mac_ver()[0]
    system = f"macOS {macos}" if macos else f"{platform.system()} {platform.release()}"
    gpu = "GPU (Metal)" if mx.metal.is_available() else "GPU (CUDA)"
    return Machine(
        system=f"{system} ({platform.machine()})",
        chip=str(mx.device_info(mx.cpu)["device_name"]),
        cores=cores(),
        memory_gb=memory_bytes() / 1e9,
        device="CPU" if on_cpu() else gpu,
        blas=blas_name(),
        gflops=gflops(),
        python=platform.python_version(),
        mlx=metadata.version("mlx"),
        mlx_lm=metadata.version("mlx-lm"),
    )


def on_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def memory_bytes() -> int:
    """The memory, in bytes, of what MLX computes on: an NVIDIA card has its own, all else the computer's."""
    return int(mx.device_info().get("total_memory") or psutil.virtual_memory().total)


def memory_limit() -> int:
    """How many bytes training may take now: what other programs leave free of an NVIDIA card, or of the
    computer; on a Mac no more than Metal recommends."""
    about = {} if on_cpu() else mx.device_info()
    if card := int(about.get("free_memory", 0)):
        return card
    free = int(psutil.virtual_memory().available)
    if recommended := int(about.get("max_recommended_working_set_size", 0)):
        return min(free, recommended)
    try:  # a container may have less than the machine
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return free


def peak_memory() -> int:
    """The most memory, in bytes, that this process has had where MLX computes: all of it on the CPU, and what
    MLX took on a GPU.

    Linux's `ru_maxrss` is not it: it starts at what the process that launched this one had.
    """
    if not on_cpu():
        return int(mx.get_peak_memory())
    with suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def gflops() -> float:
    """The measured rate of a float32 product of two 1024 x 1024 matrices, in GFLOP/s: the best of three, or
    of the many that fit in half a second, so that a moment in which others compute does not count."""
    a = mx.random.normal((1024, 1024), dtype=mx.float32, key=mx.random.key(0))
    mx.eval(a, a @ a)
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < 0.5:
        start = time.perf_counter()
        mx.eval(a @ a)
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds) / 1e9
