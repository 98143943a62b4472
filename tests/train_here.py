"""Training as most tests want it: the data loaded on the way; and its death, with its keeper's."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.events import Event
from farense_qlora.training.loop import train
from farense_qlora.training.run import Run


def train_here(config: Config, folder: Path, base: Base | None = None, **options: Any) -> Iterator[Event]:
    """The events of training as `config` says in `folder`, on `base` if that is loaded already."""
    base = base or load_base(config)
    yield from train(config, base, load_data(config, base), folder, **options)


def kill(run: Run) -> None:
    """Kill the trainer of `run` and its keeper, as a computer does that is switched off, unless they have
    just come to their end."""
    assert run._worker is not None
    with suppress(ProcessLookupError):
        os.killpg(run._worker.pid, signal.SIGKILL)
    while run.alive:
        time.sleep(0.001)
