"""Evaluations that cost little, since these tests evaluate hundreds of times; and other computers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from training.machines import Hosts, hosts_in


@pytest.fixture(autouse=True)
def few_general_texts(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of the texts that every evaluation in this process measures, two."""
    from farense_qlora.data import load

    file = tmp_path_factory.getbasetemp() / "general.jsonl"
    if not file.exists():
        lines = load.GENERAL.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:2]), encoding="utf-8")
    monkeypatch.setattr(load, "GENERAL", file)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    """What writes a file of computers, all of them this one; their runs are in a folder of the test."""
    from farense_qlora.training import run

    monkeypatch.setattr(run, "RUNS", tmp_path / "runs")
    with hosts_in(tmp_path, monkeypatch) as hosts:
        yield hosts
