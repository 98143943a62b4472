"""Whether a config fits is measured, in a process whose death costs nothing; what fits is proposed."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from tiny import PEOPLE, write_rows

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training import fit as module
from farense_qlora.training import run
from farense_qlora.training.fit import Trial, fit, smaller, trial
from farense_qlora.training.worker import take_lock


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Config:
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, batch_size=4, max_seq_length=256
    )


def test_a_config_that_fits_is_tried_once_and_measured(config: Config) -> None:
    found = fit(config)
    (trial,) = found.trials
    assert trial.fits and trial.peak_gb and trial.seconds_per_update
    assert 0.05 < trial.peak_gb < trial.limit_gb and 0 < trial.seconds_per_update < 30
    assert trial.sentence(config).startswith("✓ como pediu: cabe, 0,")


def test_what_does_not_fit_gets_the_nearest_settings_that_do(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, told = module.trial, []

    def scarce(candidate: Config) -> Trial:  # a limit that only two rows at a time keep
        measured = real(candidate)
        limit = measured.limit_gb if candidate.batch_size <= 2 else 0.001
        return replace(measured, limit_gb=limit)

    monkeypatch.setattr(module, "trial", scarce)
    found = fit(config, told.append)
    trials = found.trials
    assert told == list(trials) and found.fits and [trial.fits for trial in trials] == [False, False, True]
    assert trials[-1].config == config.changed(grad_checkpoint=True, batch_size=2, grad_accumulation_steps=2)
    assert "batch_size = 2" in trials[-1].sentence(config)
    for text in (found._repr_html_(), repr(found)):
        assert "Tentativa 3" in text and trials[-1].sentence(config) in text


def test_beside_a_training_nothing_is_tried(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    folder = tmp_path / "runs" / "um"
    folder.mkdir(parents=True)
    config.write(folder / "config.json")
    lock = take_lock(folder)
    assert lock
    with lock:
        found = fit(config)
    assert found.trials == () and not found.fits and "«um» está a decorrer" in repr(found)
    assert fit(config).trials


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are Linux's")
def test_a_process_that_dies_for_want_of_memory_is_an_answer(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    whole = module.subprocess.run

    def starved(*arguments: object, **options: object) -> object:
        limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
        return whole(*arguments, **options, preexec_fn=limit)  # type: ignore[call-overload]

    monkeypatch.setattr(module.subprocess, "run", starved)
    trial = module.trial(config)
    assert trial.peak_gb is None and not trial.fits
    assert "faltou memória" in trial.sentence(config)


def ending(monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, stdout: str = "") -> None:
    """Let the process end so."""
    done = CompletedProcess([], code, stdout, stderr)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)


@pytest.mark.parametrize(
    "code, stderr",
    [
        (-9, ""),
        (137, ""),
        (
            -6,
            "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command "
            "buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackError)",
        ),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n"),
        (1, "Traceback (most recent call last):\n  File\nMemoryError\n"),
        (
            1,
            "RuntimeError: [metal::malloc] Attempting to allocate 99 bytes which is greater than the maximum "
            "allowed buffer size of 9 bytes.",
        ),
        (1, "RuntimeError: cudaMallocAsync(&data, size, stream) failed: out of memory"),
        (1, "OpenBLAS error: Memory allocation still failed after 10 retries, giving up."),
    ],
)
def test_an_end_for_want_of_memory_does_not_fit(
    config: Config, monkeypatch: pytest.MonkeyPatch, code: int, stderr: str
) -> None:
    ending(monkeypatch, code, stderr)
    found = trial(config)
    assert not found.fits and "memória" in found.sentence(config)


@pytest.mark.parametrize(
    "code, stderr, said",
    [
        (
            1,
            "Traceback:\n  File\nValueError: [tree_flatten] only arrays\n",
            r"código 1: ValueError: \[tree_fl",
        ),
        (-11, "", "SIGSEGV"),
        (0, "", "código 0"),
    ],
)
def test_any_other_end_is_told_and_nothing_smaller_is_tried(
    config: Config, monkeypatch: pytest.MonkeyPatch, code: int, stderr: str, said: str
) -> None:
    ending(monkeypatch, code, stderr)
    tried: list[Trial] = []
    with pytest.raises(UserError, match=said) as error:
        fit(config, tried.append)
    assert not tried and "\n" not in str(error.value) and "memória" not in str(error.value)


@pytest.mark.parametrize(
    "error",
    [
        "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
        "Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)",
    ],
)
def test_a_gpus_watchdog_is_told_from_a_lack_of_memory(
    config: Config, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    ending(monkeypatch, -6, f"std::runtime_error: [METAL] Command buffer execution failed: {error}")
    found = trial(config)
    said = found.sentence(config)
    assert not found.fits and "com o ecrã ligado" in said and "memória" not in said


def test_a_process_that_hangs_is_ended_and_named(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 100\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(module, "LIMIT", 0.5)
    with pytest.raises(UserError, match="não acabou em"):
        trial(config)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_a_model_that_cannot_be_loaded_is_not_too_large(
    config: Config, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "modelo")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(UserError, match=r"falta model-00002-of-00002\.safetensors"):
        fit(config.changed(model=str(folder)))


def test_a_config_that_cannot_be_trained_at_all_says_why(config: Config) -> None:
    with pytest.raises(UserError, match="batch_size = 100 é maior"):
        fit(config.changed(batch_size=100))


def test_the_settings_that_are_tried_take_ever_less(config: Config) -> None:
    asked = config.changed(batch_size=8, max_seq_length=1024)
    tried = list(smaller(asked))
    assert tried[0] == asked.changed(grad_checkpoint=True)
    rows = [c.batch_size * c.grad_accumulation_steps for c in tried]
    assert set(rows) == {8} and tried[-1].batch_size == 1  # as many rows an update
    sizes = [(c.batch_size * c.max_seq_length, c.num_layers % 1000) for c in tried]
    assert sizes == sorted(sizes, reverse=True) and tried[-1].num_layers == 4


def test_what_the_asking_process_holds_does_not_count(config: Config) -> None:
    ballast = np.ones(200_000_000)  # 1.6 GB: a notebook with a model in it
    peak = trial(config).peak_gb
    assert peak and peak < 1.0 < ballast.nbytes / 1e9
