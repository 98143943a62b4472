"""Faults on purpose. Each is counted: tried, survived, updates lost, results corrupted; a table ends it.

`make test` runs a short form; `make faults` (FARENSE_FAULTS=whole) all of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.common import SAVE_EVERY, STEPS, Ledger, Result, result_of
from tiny import PEOPLE, write_rows
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.table import Table


@dataclass
class Count:
    """What became of one kind of fault."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    corrupted: int = 0


LEDGER: dict[str, Count] = {}


@pytest.fixture
def ledger() -> Ledger:
    """`ledger(fault, same, lost)` counts one fault: whether the run ended with the bits of the reference, and
    how many updates had to be done again."""

    def count(fault: str, same: bool, lost: int = 0) -> None:
        entry = LEDGER.setdefault(fault, Count())
        entry.tried += 1
        entry.survived += same
        entry.lost = max(entry.lost, lost)
        entry.corrupted += not same

    return count


@pytest.fixture(scope="session")
def config(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of 24 updates with everything on that a resume must bring back."""
    rows = str(write_rows(tmp_path_factory.mktemp("faults") / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, rank=4, batch_size=2, dropout=0.1,
        grad_accumulation_steps=2, warmup_ratio=0.3, epochs=100.0, max_steps=STEPS, eval_every=5,
        early_stopping_patience=20, save_every=SAVE_EVERY, learning_rate=1e-3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def reference(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run that nothing happened to."""
    run = tmp_path_factory.mktemp("reference")
    return result_of(run, list(train_here(config, run)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LEDGER:
        header = ["falha provocada", "vezes", "sobreviveu", "máx. passos perdidos", "resultados estragados"]
        rows = [(name, c.tried, c.survived, c.lost, c.corrupted) for name, c in LEDGER.items()]
        terminalreporter.write_line(f"\n{Table(rows, columns=header)}")


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where `start` puts its runs, in place of the user's."""
    from farense_qlora.training import run

    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    yield tmp_path / "runs"
