"""What the fault tests share: the form of the session, and what a run came to."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farense_qlora.training.checkpoints import FOLDER
from farense_qlora.training.events import Evaluated, Event, RolledBack, Sampled, Skipped, Spiked, Stepped

WHOLE = os.environ.get("FARENSE_FAULTS") == "whole"
STEPS, SAVE_EVERY = 24, 4
FILES = ("adapters.safetensors", "optimizer.safetensors")
Ledger = Callable[..., None]


@dataclass(frozen=True)
class Result:
    """What a run came to: the bytes of its last checkpoint, and the numbers of its events."""

    files: tuple[bytes, ...]
    numbers: list[dict[str, Any]]


def result_of(run: Path, events: Sequence[Event], steps: int = STEPS) -> Result:
    last = run / FOLDER / f"step-{steps:06d}"
    return Result(tuple((last / name).read_bytes() for name in FILES), numbers(events))


def numbers(events: Sequence[Event]) -> list[dict[str, Any]]:
    """What a run computed, without times and memory: equal for equal runs."""
    kinds = (Stepped, Evaluated, Sampled, Skipped, Spiked, RolledBack)
    apart = {"time", "seconds", "peak_memory_gb", "host_speeds", "host_memory_gb"}
    return [
        {"event": type(event).__name__, **{k: v for k, v in asdict(event).items() if k not in apart}}
        for event in events
        if isinstance(event, kinds)
    ]
