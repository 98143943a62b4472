"""Checkpoints that were cut short or changed on the disk are seen, named and passed over."""

import os
import random
import shutil
from pathlib import Path

import pytest
from faults.common import SAVE_EVERY, WHOLE, Ledger, Result, result_of
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.files import verify
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.training import loop
from farense_qlora.training.checkpoints import checkpoints
from farense_qlora.training.event_log import replay
from farense_qlora.training.events import Discarded, Event, Started, Stepped
from farense_qlora.training.saving import State, save_best

TRIES = 60 if WHOLE else 2


@pytest.fixture(scope="module")
def begun(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A run that stopped after its 16th update, and its events."""
    run, events = tmp_path_factory.mktemp("damage") / "run", []

    def stops() -> int:
        return isinstance(events[-1], Stepped) and events[-1].step == 16

    for event in train_here(config, run, stops=stops):
        events.append(event)
    return run, events


@pytest.mark.parametrize("how", ["cortado", "com um bit trocado", "sem um ficheiro"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    config: Config,
    reference: Result,
    begun: tuple[Path, list[Event]],
    tmp_path: Path,
    ledger: Ledger,
    how: str,
) -> None:
    chance = random.Random(how)
    for number in range(TRIES):
        run = shutil.copytree(begun[0], tmp_path / str(number), symlinks=True)
        newest = checkpoints(run)[0]
        victim = chance.choice(sorted(path for path in newest.iterdir()))
        data = bytearray(victim.read_bytes())
        if how == "sem um ficheiro":
            victim.unlink()
        elif how == "cortado":
            victim.write_bytes(data[: chance.randrange(len(data))])
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            victim.write_bytes(data)
        events = list(train_here(config, run))
        assert [e.path for e in events if isinstance(e, Discarded)] == ["checkpoints/step-000016"]
        started = next(event for event in events if isinstance(event, Started))
        same = result_of(run, replay([*begun[1], *events])) == reference
        ledger(f"ponto de controlo {how}", same, 16 - started.step)
        assert same and started.step == 16 - SAVE_EVERY
        shutil.rmtree(run)


def test_a_clock_that_runs_backwards_changes_nothing(
    config: Config, reference: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(loop.time, "time", lambda: float(next(now)))
    events = list(train_here(config, tmp_path))
    same = result_of(tmp_path, replay(events)) == reference
    ledger("relógio para trás", same, 0)
    assert same


def test_the_best_adapter_outlives_a_clock_that_is_set_back(config: Config, tmp_path: Path) -> None:
    """Its name and that of the one before are what is kept, not whichever files look newest."""
    base = load_base(config)
    attach(base.model, config)
    for step in range(4):
        save_best(tmp_path, config, base.name, base.model, State(learning_rate=1e-3, step=step))
        for folder in tmp_path.glob(".best-*"):
            os.utime(folder, (2**33 - step, 2**33 - step))
        assert verify(tmp_path / "best") is None
    assert len(list(tmp_path.glob(".best-*"))) == 2
