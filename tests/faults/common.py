"""What the fault tests share: the form of the session, and what a run came to."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farense_qlora.training.checkpoints import FOLDER
from farense_qlora.training.events import Event
from farense_qlora.training.resume_check import FILES, numbers

WHOLE = os.environ.get("FARENSE_FAULTS") == "whole"
STEPS, SAVE_EVERY = 24, 4
Ledger = Callable[[str, bool, int], None]


@dataclass(frozen=True)
class Result:
    """What a run came to: the bytes of its last checkpoint, and the numbers of its events."""

    files: tuple[bytes, ...]
    numbers: list[dict[str, Any]]


def result_of(run: Path, events: Sequence[Event]) -> Result:
    last = run / FOLDER / f"step-{STEPS:06d}"
    return Result(tuple((last / name).read_bytes() for name in FILES), numbers(events))
