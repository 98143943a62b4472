"""A worker killed at any moment loses at most what came after the last checkpoint, and no bit of that."""

import random
import time
from pathlib import Path

from faults.common import SAVE_EVERY, WHOLE, Ledger, Result, result_of
from train_here import kill

from farense_qlora.config import Config
from farense_qlora.training.checkpoints import FOLDER, latest
from farense_qlora.training.event_log import EventReader
from farense_qlora.training.events import Finished, Saved, Started, Stepped
from farense_qlora.training.run import Run, all_runs
from farense_qlora.training.start import start

KILLS = 200 if WHOLE else 5


def test_killed_at_random_moments_it_ends_with_the_same_bits(
    config: Config, reference: Result, runs_folder: Path, ledger: Ledger
) -> None:
    chance, kills, number = random.Random(0), 0, 0
    while kills < KILLS:
        number += 1
        killed: list[tuple[str, int]] = []  # in which way, and the updates that were to do again
        while True:
            run = start(config, f"morto-{number}")
            before = len(EventReader(run.folder).poll())
            in_a_write = chance.random() < 0.5
            (wait_for_a_write if in_a_write else wait_for_events)(run, before, chance)
            if kills + len(killed) < KILLS:
                kill(run)
            while run.alive:
                time.sleep(0.001)
            check_that_all_understand(run)
            events = EventReader(run.folder).poll()
            if isinstance(events[-1], Finished):
                break
            steps = [event.step for event in events if isinstance(event, Stepped | Started)]
            checkpoint = latest(run.folder)
            done_again = steps[-1] - (int(checkpoint.name[5:]) if checkpoint else 0)
            killed.append(("morto a meio de uma gravação" if in_a_write else "morto (SIGKILL)", done_again))
        same = result_of(run.folder, run.events()) == reference
        for fault, lost in killed:
            ledger(fault, same, lost)
        kills += len(killed)
        assert same and all(lost <= SAVE_EVERY for _, lost in killed)


def wait_for_events(run: Run, before: int, chance: random.Random) -> None:
    wanted = before + chance.randint(1, 14)
    while run.alive and len(EventReader(run.folder).poll()) < wanted:
        time.sleep(0.001)
    time.sleep(chance.random() * 0.02)


def wait_for_a_write(run: Run, before: int, chance: random.Random) -> None:
    """Until a checkpoint or the best adapter is being written, the first, second or third time."""
    for _ in range(chance.randint(1, 3)):
        while run.alive and not partial(run):
            time.sleep(0.0002)
        time.sleep(chance.random() * 0.01)
        while run.alive and partial(run) and chance.random() < 0.3:
            time.sleep(0.0002)


def partial(run: Run) -> bool:
    return any((run.folder / FOLDER).glob(".step-*.partial")) or any(run.folder.glob("..best-*"))


def check_that_all_understand(run: Run) -> None:
    assert run.status in ("interrupted", "new", "completed")
    assert [one.name for one in all_runs()].count(run.name) == 1
    if any(isinstance(event, Saved) for event in run.events()):
        assert (run.best_adapter / "adapters.safetensors").stat().st_size > 0
