"""A Mac that trains stays awake, is told from its `pmset` why it is slow, and gives the GPU small commands.

The fixtures have the form that public logs and Apple's own sources of `pmset` show: no Mac was at hand.
"""

import sys
import time
from pathlib import Path

import pytest

from farense_qlora.training import power as module
from farense_qlora.training import worker
from farense_qlora.training.power import UPDATES, Pace, hold_sleep_off, parse, trainer_environment

PMSET = Path(__file__).parent / "fixtures" / "pmset"


def read(name: str) -> str:
    return (PMSET / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "settings, battery, thermal, found",
    [
        ("settings", "batt-charging", "therm", None),
        ("settings-three-modes-high", "batt-none", "therm", None),
        ("settings-low", "batt-charging", "therm", "baixo consumo"),
        ("settings-three-modes-low", "batt-charging", "therm", "baixo consumo"),
        ("settings", "batt-discharging", "therm", "bateria (27 %)"),
        ("settings", "batt-charging", "therm-slowed", "está quente"),
        ("settings", "batt-charging", "therm-warning", "está quente"),
    ],
)
def test_what_pmset_prints_is_understood(
    settings: str, battery: str, thermal: str, found: str | None
) -> None:
    said = parse(read(settings), read(battery), read(thermal))
    if found is None:
        assert said == []
    else:
        (sentence,) = said
        assert found in sentence


def test_a_mac_without_pmset_is_known_nothing_of() -> None:
    assert parse("", "", "") == []


def test_the_gpu_gets_small_commands_on_a_mac_and_what_the_user_set_stands() -> None:
    mac = trainer_environment("darwin", {"MLX_MAX_OPS_PER_BUFFER": "7", "HOME": "/casa"})
    assert mac["MLX_MAX_OPS_PER_BUFFER"] == "7" and mac["HOME"] == "/casa"
    assert mac["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] == "1" and int(mac["MLX_MAX_MB_PER_BUFFER"]) < 40
    assert trainer_environment("linux", {"HOME": "/casa"}) == {"HOME": "/casa"}


def fake(folder: Path, name: str, lines: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
    (folder / name).chmod(0o755)


def on_a_mac(monkeypatch: pytest.MonkeyPatch, tools: Path) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")


def test_sleep_is_held_off_while_the_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_sleep_off(1234)  # nothing to do here
    fake(tmp_path, "caffeinate", f'echo "$@" > {tmp_path}/said.part; mv {tmp_path}/said.part {tmp_path}/said')
    on_a_mac(monkeypatch, tmp_path)
    hold_sleep_off(1234)
    for _ in range(100):
        if (tmp_path / "said").exists():
            break
        time.sleep(0.05)
    assert (tmp_path / "said").read_text().split() == ["-i", "-s", "-w", "1234"]
    (tmp_path / "caffeinate").unlink()
    hold_sleep_off(1234)  # a Mac that lacks it trains all the same


def test_the_trainer_is_started_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "python", f"env > {tmp_path}/env")
    fake(tmp_path, "caffeinate", f'echo "$@" > {tmp_path}/awake')
    on_a_mac(monkeypatch, tmp_path)
    monkeypatch.setenv("MLX_MAX_OPS_PER_BUFFER", "7")
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/python")
    lock = worker.take_lock(tmp_path)
    assert lock is not None
    with lock:
        trainer = worker.launch(tmp_path, lock, accept_changes=False)
    trainer.wait()
    found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert found["MLX_MAX_OPS_PER_BUFFER"] == "7" and found["AGX_RELAX_CDM_CTXSTORE_TIMEOUT"] == "1"
    for _ in range(100):
        if (tmp_path / "awake").exists() and (tmp_path / "awake").read_text():
            break
        time.sleep(0.05)
    assert (tmp_path / "awake").read_text().split()[-2:] == ["-w", str(trainer.pid)]


def test_a_training_that_slows_down_is_told_why_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, "pmset", f'case "$2" in batt) cat {PMSET}/batt-discharging.txt;; esac')
    on_a_mac(monkeypatch, tmp_path)
    pace = Pace()
    speeds = [100.0] * UPDATES + [70.0] * 3 * UPDATES + [60.0] * 4 * UPDATES
    said = [(i, text) for i, speed in enumerate(speeds) if (text := pace.why_slow(speed))]
    ((at, text),) = said
    assert 4 * UPDATES <= at < 5 * UPDATES and "bateria (27 %)" in text
    fake(tmp_path, "pmset", "")  # nothing slows it down that the Mac knows of
    pace = Pace()
    assert not any(pace.why_slow(speed) for speed in speeds)


def test_elsewhere_nothing_is_asked() -> None:
    if sys.platform != "darwin":
        pace = Pace()
        assert not any(pace.why_slow(speed) for speed in [9.0] * UPDATES + [1.0] * 3 * UPDATES)
