"""The best adapter is whole at every moment, with symbolic links and without; copies are no checkpoints."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.files import verify
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.training import checkpoints as module
from farense_qlora.training.checkpoints import best, checkpoints, latest, tidy
from farense_qlora.training.events import Evaluated
from farense_qlora.training.run import Run
from farense_qlora.training.saving import State, save_best

CONFIG = Config.of("mini", rank=2)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> nn.Module:
    model = load_base(Config(model=str(tiny_model))).model
    attach(model, CONFIG)
    return model


@pytest.fixture(params=["ENOTSUP", "EPERM", "ENOSYS"])
def no_links(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    forbid_links(monkeypatch, getattr(errno, request.param))


def forbid_links(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def symlink(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "symlink", symlink)


def state(step: int) -> State:
    return State(learning_rate=1e-3, step=step, best_step=step, best_loss=0.5)


def keep(run: Path, model: nn.Module, step: int) -> Path:
    """Save the adapter, every number of it the `step`, and return where `best` then leads."""
    model.load_weights(
        [("model.layers.0.self_attn.q_proj.lora_a", mx.full((64, 2), float(step)))], strict=False
    )
    save_best(run, CONFIG, "mini", model, state(step))
    found = best(run)
    assert found is not None
    return found


def step_in(folder: Path | None) -> float:
    assert folder is not None and verify(folder) is None
    arrays: Any = mx.load(str(folder / "adapters.safetensors"))
    return float(arrays["model.layers.0.self_attn.q_proj.lora_a"][0, 0])


def test_without_links_the_best_adapter_is_kept_all_the_same(
    model: nn.Module, tmp_path: Path, no_links: None
) -> None:
    for step in (10, 20, 30):
        assert keep(tmp_path, model, step) == tmp_path / "best" and step_in(tmp_path / "best") == step
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_run_goes_on_where_links_came_or_went(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert step_in(keep(tmp_path, model, 10)) == 10 and (tmp_path / "best").is_symlink()
    with monkeypatch.context() as context:  # its folder was taken to another disk
        forbid_links(context, errno.ENOTSUP)
        moved = shutil.copytree(tmp_path, tmp_path.with_name("levado"), symlinks=False)
        assert step_in(keep(moved, model, 20)) == 20
    assert step_in(keep(moved, model, 30)) == 30 and not (moved / "best").is_symlink()


def test_a_death_between_the_two_renames_loses_nothing(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_links(monkeypatch, errno.ENOTSUP)
    keep(tmp_path, model, 10)
    rename = os.rename

    def die(source: Any, target: Any) -> None:
        if Path(target).name == "best":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        save_best(tmp_path, CONFIG, "mini", model, state(20))
    assert step_in(best(tmp_path)) == 10
    monkeypatch.setattr(os, "rename", rename)
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best"] and step_in(best(tmp_path)) == 10
    assert step_in(keep(tmp_path, model, 30)) == 30


def test_what_else_a_disk_says_of_a_link_is_told(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(UserError, match="o disco está cheio"):
        save_best(tmp_path, CONFIG, "mini", model, state(10))


def test_a_whole_run_trains_and_resumes_without_links(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tiny import PEOPLE, write_rows

    forbid_links(monkeypatch, errno.ENOTSUP)
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    config = Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, batch_size=8, epochs=4, eval_every=2
    )
    run = tmp_path / "run"
    (run).mkdir()
    list(train_here(config, run))
    assert verify(run / "best") is None and not (run / "best").is_symlink()


def test_a_copy_that_a_file_manager_made_is_no_checkpoint(tmp_path: Path) -> None:
    for name in (
        "step-000100",
        "step-000200",
        "step-000200 copy",
        "step-000300 2",
        "step-000300 (1)",
        "step-x",
    ):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000200", "step-000100"]
    assert latest(tmp_path) is None  # none is whole
    with pytest.raises(UserError, match="ainda não guardou nenhum adaptador"):
        _ = Run(tmp_path).best_adapter


def test_once_one_is_measured_the_best_adapter_is_found_without_reading_a_checkpoint(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of a large model is half a gigabyte."""
    keep(tmp_path, model, 10)
    (tmp_path / "checkpoints/step-000010").mkdir(parents=True)
    measured = Evaluated(step=10, epoch=1.0, loss=0.5, best=True, seconds=0.1)
    (tmp_path / "events.jsonl").write_text(measured.to_json() + "\n", encoding="utf-8")
    monkeypatch.setattr(module, "verify", lambda folder: pytest.fail(f"{folder} was read"))
    assert Run(tmp_path).best_adapter == tmp_path / "best"
