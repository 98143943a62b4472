"""What this computer is: chip, memory, versions, MLX's device and how fast it multiplies."""

import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlx.core as mx

from .cpu.blas import cores, use_fast_blas


@dataclass(frozen=True)
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
    return Machine(
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        chip=_chip(),
        cores=cores(),
        memory_gb=memory_bytes() / 1e9,
        device="CPU" if on_cpu() else _gpu(),
        blas=use_fast_blas(),
        gflops=gflops(),
        python=platform.python_version(),
        mlx=metadata.version("mlx"),
        mlx_lm=metadata.version("mlx-lm"),
    )


def memory_bytes() -> int:
    """The memory of this computer, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def on_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def memory_limit() -> int:
    """How many bytes training may take: on a GPU what its driver recommends, on the CPU what is free now."""
    if not on_cpu():
        return int(mx.device_info().get("max_recommended_working_set_size", memory_bytes()))
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return memory_bytes()
    try:  # a container may have less than the machine
        allowed = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return free
    return min(free, allowed)


def _chip() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str:
    return "GPU (Metal)" if mx.metal.is_available() else "GPU (CUDA)"


def gflops(size: int = 1024) -> float:
    """The measured rate of a float32 product of two `size` x `size` matrices, in GFLOP/s: the best of three,
    or of the many that fit in half a second, so that a moment in which others compute does not count."""
    a = mx.random.normal((size, size), dtype=mx.float32, key=mx.random.key(0))
    mx.eval(a, a @ a)
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < 0.5:
        start = time.perf_counter()
        mx.eval(a @ a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e9
