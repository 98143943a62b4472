"""Runs are picked from a list, and those picked stand in one view."""

from dataclasses import replace
from pathlib import Path

import pytest
from ui_events import events, sampled, write_run

from farense_qlora.errors import UserError
from farense_qlora.training import run as run_module
from farense_qlora.training.events import Failed
from farense_qlora.ui import live
from farense_qlora.ui.comparison import RunPicker
from farense_qlora.ui.monitor import newest
from farense_qlora.ui.panel import panel


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    for name, answer in (("a", "Não sei."), ("b", "Paco Fortes."), ("c", "Outro.")):
        write_run(tmp_path / name, [*events()[:-1], sampled(60, answer, "Em 1980."), events()[-1]])


@pytest.mark.usefixtures("runs")
def test_those_picked_are_shown_with_numbers_and_answers_side_by_side() -> None:
    view = RunPicker()
    assert view.picked.options == ("c", "b", "a") and view.picked.value == ("c", "b")
    assert view.tables.value.count("60 / 60") == 2
    assert "Outro." in view.tables.value and "Não sei." not in view.tables.value
    before = bytes(view.curves.value)
    assert before.startswith(b"\x89PNG")
    view.picked.value = ("c", "b", "a")
    assert "Não sei." in view.tables.value and "Paco Fortes." in view.tables.value
    assert bytes(view.curves.value) != before


@pytest.mark.usefixtures("runs")
def test_attempts_that_never_trained_are_in_no_list(tmp_path: Path) -> None:
    write_run(tmp_path / "d", [Failed(step=0, time=9.0, message="não há memória")])
    assert RunPicker().picked.options == ("c", "b", "a")
    with pytest.raises(UserError, match=r"\(há: c, b, a\)"):
        run_module.Run.open("nada")


def test_without_a_run_there_is_an_empty_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    assert RunPicker().picked.options == ()


def test_whoever_shows_the_newest_run_unasked_shows_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    monkeypatch.setattr(live, "Watching", lambda run: run)
    monkeypatch.delenv("FARENSE_PROFILE", raising=False)
    for began, (name, rank) in enumerate((("z", 3), ("a", 5), ("m", 7))):
        write_run(tmp_path / name, [replace(event, time=float(began)) for event in events()], rank=rank)
    assert RunPicker().picked.options == ("m", "a", "z")
    assert (newest().name, live.watch().name, panel().config.rank) == ("m", "m", 7)
