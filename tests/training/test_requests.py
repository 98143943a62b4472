"""Requests to a run: files that anyone may write, and only the one that trains takes away."""

from pathlib import Path

import pytest

from farense_qlora.errors import UserError
from farense_qlora.training.requests import (
    LEARNING_RATE,
    PAUSE,
    SAVE,
    STOP,
    STOP_NOW,
    Requests,
    clear_requests,
    is_requested,
    read_requests,
    request,
    stops_asked,
)


def test_a_checkpoint_and_a_learning_rate_are_granted_once_and_a_stop_stands(tmp_path: Path) -> None:
    request(tmp_path, SAVE)
    request(tmp_path, LEARNING_RATE, "0.0005")
    request(tmp_path, STOP)
    assert is_requested(tmp_path, SAVE) and is_requested(tmp_path, LEARNING_RATE)  # to look takes nothing
    assert read_requests(tmp_path) == Requests(save=True, learning_rate=5e-4)
    assert read_requests(tmp_path) == Requests() and stops_asked(tmp_path) == 1
    request(tmp_path, STOP_NOW)
    assert stops_asked(tmp_path) == 2
    clear_requests(tmp_path)
    assert read_requests(tmp_path) == Requests() and not list(tmp_path.iterdir())


def test_during_a_pause_the_others_wait(tmp_path: Path) -> None:
    for name in (PAUSE, SAVE):
        request(tmp_path, name)
    assert read_requests(tmp_path) == Requests(pause=True)
    (tmp_path / PAUSE).unlink()
    assert read_requests(tmp_path) == Requests(save=True)


def test_a_request_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError):
        request(tmp_path / "file" / "run", STOP)
