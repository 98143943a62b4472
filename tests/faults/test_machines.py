"""Of processes that train together any may die at any moment: all end, it is named, and the run goes on."""

import random
import signal
import time
from pathlib import Path

import pytest
from faults.common import SAVE_EVERY, WHOLE, Ledger, result_of
from training.machines import helpers_of, hosts_in, wait_for

from farense_qlora.config import Config
from farense_qlora.training.event_log import EventReader
from farense_qlora.training.events import Evaluated, Restarted, Saved, Started, Stepped, of
from farense_qlora.training.start import start

DEATHS, OTHERS = (50, ("b", "c")) if WHOLE else (2, ("b",))
SECONDS_TO_END, SECONDS_TO_END_IN_SILENCE = 10.0, 30.0


def test_any_of_them_may_die_and_the_run_ends_with_the_same_bits(
    config: Config, runs_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    chance = random.Random(0)
    with hosts_in(tmp_path, monkeypatch) as hosts:
        together = hosts(*OTHERS)
        inteiro = start(config, "inteiro", hosts=together).wait()
        reference = result_of(inteiro.folder, inteiro.events())
        for number in range(DEATHS):
            run = start(config, f"morto-{number}", hosts=together)
            wait_for(run, chance.choice([Stepped, Saved, Evaluated]), count=chance.randint(1, 4))
            time.sleep(chance.random() * 0.05)
            victims = helpers_of(run)
            rank = chance.randint(0, len(OTHERS)) if WHOLE else 1 - number
            victim = victims[rank - 1] if rank else victims[0].parent()
            silent = rank > 0 and chance.random() < 0.2 and WHOLE
            victim.send_signal(signal.SIGSTOP if silent else signal.SIGKILL)
            died = time.monotonic()
            while any(one.is_running() and one.status() != "zombie" for one in victims):
                limit = SECONDS_TO_END_IN_SILENCE if silent else SECONDS_TO_END
                assert time.monotonic() - died < limit
                time.sleep(0.01)
            wait_for(run, Restarted)
            took = time.monotonic() - died
            run.wait()
            (restart,) = of(run.events(), Restarted)
            assert rank == 0 or f"«{OTHERS[rank - 1]}»" in restart.cause, restart.cause
            before = EventReader(run.folder).poll()
            steps = of(before[: before.index(restart)], Started, Stepped)
            lost = steps[-1].step - max(0, restart.step)
            same = result_of(run.folder, run.events()) == reference
            who, what = "outro" if rank else "o primeiro", "SIGSTOP" if silent else "SIGKILL"
            ledger(f"{who} dos computadores: {what}", same, lost, took)
            assert same and lost <= SAVE_EVERY
