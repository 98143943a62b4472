"""A run of the miniature that was cut off and taken up again ends with the same bits: `make resume-check`.

Dropout, accumulation, packing, warm-up and early stopping are on.
"""

from pathlib import Path

import pytest
from faults.common import WHOLE, Result, result_of
from train_here import train_here

from farense_qlora.config import HOME, Config
from farense_qlora.training.event_log import replay
from farense_qlora.training.events import Event, Stepped
from farense_qlora.training.step import Step

UPDATES, ROWS = 10, {"train_data": 64, "val_data": 16}
CUTS = (1, 5, 9) if WHOLE else (9,)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("rows")
    for file, count in ROWS.items():
        rows = (HOME / f"data/{file}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:count]
        (folder / f"{file}.jsonl").write_text("".join(rows), encoding="utf-8")
    return Config.of(
        "mini", dropout=0.1, batch_size=4, grad_accumulation_steps=2, warmup_ratio=0.3, max_steps=UPDATES,
        eval_every=5, save_every=3, early_stopping_patience=5,
        train_data=str(folder / "train_data.jsonl"), val_data=str(folder / "val_data.jsonl"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Result:
    run = tmp_path_factory.mktemp("whole")
    return result_of(run, list(train_here(config, run)), UPDATES)


def cut_off_and_resumed(config: Config, run: Path, cut: int) -> Result:
    events: list[Event] = []
    for event in train_here(config, run):
        events.append(event)
        if isinstance(event, Stepped) and event.step == cut:
            break
    events += train_here(config, run)
    return result_of(run, replay(events), UPDATES)


@pytest.mark.parametrize("cut", CUTS)
def test_a_run_cut_off_after_any_update_ends_with_the_same_bits(
    config: Config, whole: Result, tmp_path: Path, cut: int
) -> None:
    assert cut_off_and_resumed(config, tmp_path, cut) == whole


def test_a_resume_that_forgets_the_optimizer_is_found_out(
    config: Config, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Step, "restore", lambda step, state: None)
    assert cut_off_and_resumed(config, tmp_path, 5).files[0] != whole.files[0]
