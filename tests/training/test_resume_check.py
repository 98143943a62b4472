"""The check that a user can run: a run cut short and taken up again ends the same, and it can tell if not."""

import pytest

from farense_qlora.training import resume_check as module
from farense_qlora.training.resume_check import CUTS, resume_check
from farense_qlora.training.step import Step


def test_resuming_is_exact_on_the_miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CUTS", CUTS[-1:])
    assert [check.passed for check in resume_check()] == [True]


def test_a_resume_that_forgets_the_optimizer_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CUTS", CUTS[1:2])
    monkeypatch.setattr(Step, "restore", lambda step, state: None)
    (check,) = resume_check()
    assert not check.adapter and not check.passed
