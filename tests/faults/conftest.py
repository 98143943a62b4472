"""Faults on purpose. Each is counted: tried, survived, updates lost, results corrupted; a table ends it.

`make test` runs a short form; `make faults` (FARENSE_FAULTS=whole) all of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
from faults.common import SAVE_EVERY, STEPS, Ledger, Result, result_of
from tiny import PEOPLE, write_rows
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.table import Table
from farense_qlora.text import decimal


@dataclass
class Count:
    """What became of one kind of fault."""

    tried: int = 0
    survived: int = 0
    lost: int = 0
    corrupted: int = 0
    seconds: list[float] = field(default_factory=list)


LEDGER: dict[str, Count] = {}


@pytest.fixture
def ledger() -> Ledger:
    """`ledger(fault, same, lost, seconds)` counts one fault: whether the run ended with the bits of the
    reference, how many updates had to be done again, and the seconds to the next one where nobody helped."""

    def count(fault: str, same: bool, lost: int = 0, seconds: float | None = None) -> None:
        entry = LEDGER.setdefault(fault, Count())
        entry.tried += 1
        entry.survived += same
        entry.lost = max(entry.lost, lost)
        entry.corrupted += not same
        entry.seconds += [seconds] if seconds is not None else []

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
        most = "máx. atualizações repetidas"
        header = ["falha provocada", "vezes", "sobreviveu", most, "resultados estragados"]
        header.append("s até continuar (mediana)")
        rows = [
            (
                name,
                c.tried,
                c.survived,
                c.lost,
                c.corrupted,
                decimal(median(c.seconds), 1) if c.seconds else "",
            )
            for name, c in LEDGER.items()
        ]
        terminalreporter.write_line(f"\n{Table(rows, columns=header)}")


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where `start` puts its runs, in place of the user's."""
    from farense_qlora.training import run

    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    yield tmp_path / "runs"
