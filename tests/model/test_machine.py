"""What a computer is said to be, and to have room for, is what MLX computes on."""

import mlx.core as mx
import psutil
import pytest

from farense_qlora.model import machine as module
from farense_qlora.model.machine import machine, memory_bytes, memory_limit

CARD = {"device_name": "NVIDIA GeForce RTX 4090", "total_memory": 24 * 10**9, "free_memory": 23 * 10**9}
MAC = {
    "device_name": "Apple M2 Pro",
    "memory_size": 32 * 10**9,
    "max_recommended_working_set_size": 22 * 10**9,
}


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, about: dict[str, object], processor: str) -> None:
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    known = {None: about, mx.cpu: {"device_name": processor}}
    monkeypatch.setattr(module.mx, "device_info", lambda device=None: known[device])


def test_a_card_has_room_for_what_the_card_has_and_not_the_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, CARD, "AMD Ryzen 9 7950X")
    about = machine()
    assert memory_limit() == 23 * 10**9 and memory_bytes() == 24 * 10**9 and about.memory_gb == 24
    assert about.chip == "AMD Ryzen 9 7950X" and about.device == "GPU (CUDA)"


def test_a_mac_has_room_for_what_metal_recommends_and_its_processor_has_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_gpu(monkeypatch, MAC, "Apple M2 Pro")
    memory = psutil.virtual_memory()
    assert memory_bytes() == memory.total
    for free, limit in ((30 * 10**9, 22 * 10**9), (6 * 10**9, 6 * 10**9)):  # or what other programs leave
        with monkeypatch.context() as context:
            context.setattr(
                module.psutil, "virtual_memory", lambda free=free: memory._replace(available=free)
            )
            assert memory_limit() == limit
    assert machine().chip == "Apple M2 Pro"


def test_a_processor_has_room_for_what_is_free_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_cpu", lambda: True)
    assert 0 < memory_limit() <= memory_bytes()
