"""The doctor looks at the real machine; what is wrong comes with the command that mends it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Command
from ui_events import events, write_run

from farense_qlora.config import OUTPUT
from farense_qlora.data import sources
from farense_qlora.model.machine import machine
from farense_qlora.profiles import PROFILES
from farense_qlora.training import doctor as module
from farense_qlora.training import run as run_module
from farense_qlora.training.doctor import doctor, recommended_profile

MACHINE = machine()


def test_a_sound_machine_passes_and_gets_a_profile() -> None:
    report = doctor()
    assert report.ok, [check for check in report.checks if not check.ok]
    names = [check.name for check in report.checks]
    assert {"Python", "Pacotes", "Memória", "Disco", "Modelo base", "Dados (train_data)"} <= set(names)
    assert report.profile in PROFILES and report._repr_html_().count("Perfil recomendado") == 1


def test_the_profile_follows_the_memory() -> None:
    gigabytes = {
        4: "mini",
        8: "mistral-7b-8gb",
        16: "mistral-7b",
        32: "mistral-7b-32gb",
        96: "mistral-7b-32gb",
    }
    for memory, profile in gigabytes.items():
        assert recommended_profile(memory, on_cpu=False) == profile and profile in PROFILES
    assert recommended_profile(96, on_cpu=True) == "mini"


def test_what_is_wrong_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sources, "HOME", tmp_path)  # no data here
    monkeypatch.setattr(module, "RUNS", tmp_path / "file" / "runs")  # no folder can be made there
    monkeypatch.setattr(module, "memory_limit", lambda: 10**8)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(module, "recommended_profile", lambda *_: "mistral-7b")
    report = doctor()
    bad = {check.name: check for check in report.checks if not check.ok}
    assert {"Treinos", "Memória", "Dados (train_data)", "Dados (val_data)", "Modelo base"} <= set(bad)
    assert all(check.remedy and check.detail for check in bad.values())
    assert bad["Dados (val_data)"].remedy == "farense-qlora prepare"
    assert not report.ok and "    a fazer: farense-qlora prepare" in str(report).splitlines()
    assert "✗ Dados (val_data)" in report._repr_html_() and "farense-qlora prepare" in report._repr_html_()


def test_memory_and_disk_are_those_that_the_profile_needs_where_they_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "recommended_profile", lambda *_: "mistral-7b")
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    monkeypatch.setattr(module, "HUB", tmp_path / "hub")
    sizes = {tmp_path: 3 * 10**9}
    usage = module.shutil.disk_usage
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda path: usage(path)._replace(free=sizes.get(path, 10**12))
    )
    monkeypatch.setattr(module, "memory_limit", lambda: 5 * 10**9)
    checks = {check.name: check for check in doctor().checks}
    assert checks["Disco"].ok and not checks["Disco dos modelos"].ok
    remedy = checks["Disco dos modelos"].remedy
    assert "4,08 GB" in remedy and str(tmp_path) in remedy
    assert not checks["Memória"].ok and "pede 5," in checks["Memória"].remedy
    monkeypatch.setattr(module, "memory_limit", lambda: 6 * 10**9)
    assert {check.name: check.ok for check in doctor().checks}["Memória"]


def test_what_slows_a_mac_down_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "power", lambda: ["está a funcionar com a bateria (27 %)"])
    (check,) = [check for check in doctor().checks if check.name == "Energia"]
    assert not check.ok and "bateria (27 %)" in check.detail


def test_the_table_to_share_has_the_last_trainings_and_no_names_or_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    run = write_run(tmp_path / "segredo", events(), train_data="/casa/maria/linhas.jsonl")
    run.config.changed(profile="o-meu").write(run.folder / "config.json")
    for began in range(1, 4):
        write_run(tmp_path / str(began), [replace(event, time=-float(began)) for event in events(began)])
    table = module.share(machine())
    assert "| 2 atualizações em" in table and "| 3 atualizações em" not in table  # the last three trainings
    assert table.startswith("| Facto | Valor |\n| --- | --- |\n| Sistema | ") and "GFLOP/s" in table
    assert "perfil outro, 4 bits | 60 atualizações em 30 s; 600 tokens/s; memória 0,25 GB" in table
    assert not any(
        word in table for word in ("segredo", "maria", "o-meu", str(tmp_path), os.uname().nodename)
    )


def test_looking_leaves_nothing_behind_that_changes_what_comes_next() -> None:
    before = sorted(OUTPUT.glob("*")) if OUTPUT.exists() else []
    doctor()
    assert sorted(OUTPUT.glob("*")) == before
    assert not (OUTPUT / "recommended_config.json").exists()


def test_a_package_that_is_too_old_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module.metadata, "requires", lambda _: ["numpy>=999", "tqdm", "nowhere>=1; extra == 'dev'"]
    )
    checks = {check.name: check for check in doctor().checks}
    assert (checks["Pacotes"].ok, checks["Pacotes"].detail) == (False, "em falta: numpy>=999")


def test_the_command_says_so_and_so_does_its_exit_code(farense: Command) -> None:
    done = farense("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stdout
    assert "✓ Memória: " in farense("doctor").stdout
    assert farense("doctor", "--share").stdout.startswith("| Facto | Valor |")


@pytest.mark.parametrize("memory", [8, 16, 24, 32, 64])
def test_no_profile_is_recommended_that_the_memory_check_refuses(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    monkeypatch.setattr(module, "machine", lambda: replace(MACHINE, memory_gb=memory, device="GPU (Metal)"))
    monkeypatch.setattr(module, "memory_limit", lambda: 0.7 * memory * 1e9)
    report = doctor()
    (check,) = [check for check in report.checks if check.name == "Memória"]
    assert report.profile.startswith("mistral-7b") and check.ok, check
