"""A trainer that dies is started again by itself, and the run ends with the bits of one that never died."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from faults.common import SAVE_EVERY, STEPS, WHOLE, Ledger, Result, result_of
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training.event_log import EventReader
from farense_qlora.training.events import Finished, Restarted, Saved, Started, Stepped, of
from farense_qlora.training.run import Run
from farense_qlora.training.start import start
from farense_qlora.training.worker import take_lock

DEATHS, IN_ONE_RUN, HANGS = (200, 20, 10) if WHOLE else (5, 5, 1)
LONG = 8 * IN_ONE_RUN
SIGNALS = (signal.SIGKILL, signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV, signal.SIGILL, signal.SIGQUIT)
# A keeper of less patience than ours.
IMPATIENT = """
import pathlib, sys
from farense_qlora.training import keeper
keeper.SILENCE, keeper.TIMES_LONGER, keeper.PAUSES = 2.0, 1, (0, 0.1)
sys.exit(keeper.Keeper(pathlib.Path(sys.argv[1]), int(sys.argv[2]), []).run())
"""
# What a trainer does besides, from before its first line on. This one takes memory and gives none back.
LEAK = """
def aside(held=[]):
    folder = sys.orig_argv[sys.orig_argv.index("farense_qlora.training.worker") + 1]
    while not os.path.exists(f"{folder}/checkpoints/step-000008"):
        time.sleep(0.001)
    held.append(bytearray(b"x") * 1_000_000_000)
"""
# For this one, when it is told so, there is no memory left.
NO_MEMORY_LEFT = """
def aside(held=[]):
    while not os.path.exists(ONCE):
        time.sleep(0.001)
    os.unlink(ONCE)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    while True:
        try:
            held.append(bytearray(1000))
        except MemoryError:
            time.sleep(0.001)
"""
# What Metal leaves behind, once, when a command is too large.
METAL = """
def aside():
    while not os.path.exists(ONCE):
        time.sleep(0.001)
    os.unlink(ONCE)
    sys.stderr.write("libc++abi: terminating due to uncaught exception of type std::runtime_error: "
        "[METAL] Command buffer execution failed: Insufficient Memory "
        "(00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)")
    os.abort()
"""
# What ends without a signal, once.
ODD_CODE = """
def aside():
    while not os.path.exists(ONCE):
        time.sleep(0.001)
    os.unlink(ONCE)
    os._exit(37)
"""
ABORT = """
def aside():
    os.abort()
"""
BEGIN = """
if "farense_qlora.training.worker" in sys.orig_argv:
    threading.Thread(target=aside, daemon=True).start()
"""


@pytest.fixture
def trainer_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`trainer_code(code)` has the `aside` of `code` run beside every trainer that starts from then on."""

    def run_aside(code: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        text = f"import os, resource, sys, threading, time\n{code}\n{BEGIN}"
        (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    return run_aside


def trainer_of(run: Run) -> psutil.Process:
    """The process that trains now."""
    assert run._worker is not None
    while True:
        for child in psutil.Process(run._worker.pid).children():
            if child.status() != psutil.STATUS_ZOMBIE:
                return child
        assert run.alive
        time.sleep(0.005)


def after_news(run: Run, log: EventReader, *kinds: type) -> None:
    """Wait for an event of one of `kinds`; for a checkpoint of an update, and not of the start."""
    seen = kinds != (Saved,)
    while True:
        for event in log.poll():
            seen |= isinstance(event, Stepped)
            if seen and isinstance(event, kinds):
                return
        assert run.alive, (run.folder / "worker.log").read_text()
        time.sleep(0.001)


@pytest.fixture(scope="module")
def long(config: Config) -> Config:
    """A run with time enough to die in many times."""
    return config.changed(max_steps=LONG, eval_every=LONG // 4)


@pytest.fixture(scope="module")
def long_reference(long: Config, tmp_path_factory: pytest.TempPathFactory) -> Result:
    run = tmp_path_factory.mktemp("long")
    return result_of(run, list(train_here(long, run)), LONG)


@pytest.mark.parametrize("number", range(DEATHS // IN_ONE_RUN))
def test_the_trainer_dies_many_times_and_nobody_is_needed(
    long: Config,
    long_reference: Result,
    runs_folder: Path,
    ledger: Ledger,
    trainer_code: Callable[[str], None],
    number: int,
) -> None:
    chance, once = random.Random(number), runs_folder.parent / "once"
    trainer_code(ODD_CODE.replace("ONCE", repr(str(once))))
    run = start(long.changed(save_every=1), f"guardado-{number}")
    log = EventReader(run.folder)
    deaths = []
    for _ in range(IN_ONE_RUN):
        after_news(run, log, Saved)  # so that it has come further, and is started at once
        time.sleep(chance.random() * 0.02)
        kind = chance.choice([*SIGNALS, None])
        if kind is None:
            once.touch()
        else:
            trainer_of(run).send_signal(kind)
        died = time.monotonic()
        after_news(run, log, Restarted)
        after_news(run, log, Stepped)
        deaths.append((kind.name if kind else "o código 37", time.monotonic() - died))
    run.wait()
    events = EventReader(run.folder).poll()
    restarts = of(events, Restarted)
    same = result_of(run.folder, run.events(), LONG) == long_reference
    for restart, (name, seconds) in zip(restarts, deaths, strict=True):
        before = of(events[: events.index(restart)], Stepped)
        lost = before[-1].step - restart.step
        ledger(f"o processo que treina: {name}", same, lost, seconds)
        assert lost <= 1 and (name in restart.cause and restart.splits == 0 and restart.pause == 0), restart
    assert same and isinstance(run.events()[-1], Finished)
    assert of(run.events(), Restarted) == restarts  # they stay to be seen


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory is kept to on Linux")
@pytest.mark.parametrize("code", [NO_MEMORY_LEFT, METAL], ids=["no memory left", "Metal's word for it"])
def test_for_want_of_memory_it_goes_on(
    config: Config,
    reference: Result,
    runs_folder: Path,
    ledger: Ledger,
    trainer_code: Callable[[str], None],
    code: str,
) -> None:
    once = runs_folder.parent / "once"
    trainer_code(code.replace("ONCE", repr(str(once))))
    run = start(config.changed(save_every=1), "sem-memoria")
    after_news(run, EventReader(run.folder), Saved)
    once.touch()
    run.wait()
    (restart,) = of(run.events(), Restarted)
    losses = [event.loss for event in of(run.events(), Stepped)]
    expected = [entry["loss"] for entry in reference.numbers if entry["event"] == "Stepped"]
    if code == METAL:
        assert restart.splits == 1 and restart.cause == "faltou memória"
    if restart.splits:  # dropout draws other masks for rows in other shapes
        same = losses[: restart.step] == expected[: restart.step] and len(losses) == STEPS
        assert losses[-1] == pytest.approx(expected[-1], rel=0.5)
    else:
        same = result_of(run.folder, run.events()) == reference
    ledger("o processo que treina: falta de memória", same, 0)
    assert same


def test_halved_micro_batches_give_the_same_updates(config: Config, tmp_path: Path) -> None:
    for packing in (True, False):
        config = config.changed(dropout=0.0, packing=packing, batch_size=4, grad_accumulation_steps=1)
        losses = [
            [
                event.loss
                for event in train_here(config, tmp_path / f"{packing}-{splits}", splits=splits)
                if isinstance(event, Stepped)
            ]
            for splits in (0, 1, 2, 5)
        ]
        for halved in losses[1:]:
            assert halved == pytest.approx(losses[0], rel=1e-3)


def start_impatiently(config: Config, folder: Path) -> Run:
    """A run whose keeper waits for nothing."""
    folder.mkdir(parents=True)
    config.write(folder / "config.json")
    lock = take_lock(folder)
    assert lock is not None
    command = [sys.executable, "-c", IMPATIENT, str(folder), str(lock.fileno())]
    with lock, open(folder / "worker.log", "ab") as log:
        keeper = subprocess.Popen(
            command, pass_fds=[lock.fileno()], start_new_session=True, stdout=log, stderr=log
        )
    return Run(folder, keeper)


@pytest.mark.parametrize("number", range(HANGS))
def test_a_trainer_that_hangs_is_ended_and_named(
    config: Config, reference: Result, runs_folder: Path, ledger: Ledger, number: int
) -> None:
    run = start_impatiently(config, runs_folder / f"parado-{number}")
    log = EventReader(run.folder)
    after_news(run, log, Stepped)
    time.sleep(random.Random(number).random() * 0.03)
    trainer_of(run).send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    after_news(run, log, Restarted)
    after_news(run, log, Stepped)
    seconds = time.monotonic() - stopped
    run.wait()
    restart = of(run.events(), Restarted)[0]
    assert "não deu sinal de vida" in restart.cause
    before = of(EventReader(run.folder).poll(), Stepped)
    lost = max((event.step for event in before if event.time < restart.time), default=0) - restart.step
    same = result_of(run.folder, run.events()) == reference
    ledger("o processo que treina: deixa de responder", same, lost, seconds)
    assert same and lost <= SAVE_EVERY


def test_a_trainer_whose_keeper_is_killed_saves_and_ends(
    config: Config, reference: Result, runs_folder: Path, ledger: Ledger
) -> None:
    run = start(config.changed(max_steps=STEPS), "sem-guarda")
    after_news(run, EventReader(run.folder), Stepped)
    run.pause()  # so that it is still at it
    assert run._worker is not None
    run._worker.kill()
    deadline = time.monotonic() + 60
    while run.alive:
        assert time.monotonic() < deadline, "a trainer is left that nobody keeps"
        time.sleep(0.01)
    done = of(run.events(), Stepped)[-1].step
    assert done < STEPS and run.status == "stopped"
    again = start(config, "sem-guarda").wait()
    (_, resumed) = of(EventReader(run.folder).poll(), Started)
    same = result_of(again.folder, again.events()) == reference
    ledger("o processo que guarda: SIGKILL", same, done - resumed.step)
    assert same and resumed.step == done


def test_a_leak_is_recycled_away(
    config: Config, runs_folder: Path, trainer_code: Callable[[str], None]
) -> None:
    config = config.changed(max_steps=100, save_every=4, keep_last=30, eval_every=100, probes=0)
    whole = start(config, "inteiro").wait()
    assert not of(whole.events(), Restarted)
    trainer_code(LEAK)
    run = start(config, "roto").wait()
    restarts = of(run.events(), Restarted)
    assert restarts and {restart.cause for restart in restarts} == {"a memória crescia sem razão"}
    assert result_of(run.folder, run.events(), 100) == result_of(whole.folder, whole.events(), 100)


def test_one_that_never_comes_further_is_given_up(
    config: Config, runs_folder: Path, trainer_code: Callable[[str], None]
) -> None:
    trainer_code(ABORT)
    run = start_impatiently(config, runs_folder / "perdido")
    with pytest.raises(UserError, match=r"morreu 3 vezes seguidas sem avançar \(.*SIGABRT"):
        run.wait()
    assert [restart.pause for restart in of(run.events(), Restarted)] == [0, 0.1]


def test_the_keeper_is_small(config: Config, runs_folder: Path) -> None:
    run = start(config.changed(max_steps=60), "pequeno")
    after_news(run, EventReader(run.folder), Stepped)
    assert run._worker is not None
    assert psutil.Process(run._worker.pid).memory_info().rss < 30e6
    run.wait()
