"""Evaluations that cost little: the tests of training evaluate hundreds of times."""

import pytest


@pytest.fixture(autouse=True)
def few_general_texts(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of the texts that every evaluation in this process measures, two."""
    from farense_qlora.data import load

    file = tmp_path_factory.getbasetemp() / "general.jsonl"
    if not file.exists():
        lines = load.GENERAL.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:2]), encoding="utf-8")
    monkeypatch.setattr(load, "GENERAL", file)
