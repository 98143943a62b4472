"""Training as most tests want it: the data loaded on the way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.events import Event
from farense_qlora.training.loop import train


def train_here(config: Config, folder: Path, base: Base | None = None, **options: Any) -> Iterator[Event]:
    """The events of training as `config` says in `folder`, on `base` if that is loaded already."""
    base = base or load_base(config)
    yield from train(config, base, load_data(config, base), folder, **options)
