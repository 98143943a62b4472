"""Prove, on this machine, that a run that was cut short and taken up again ends with the same bits."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import HOME, Config
from ..data.load import load_data
from ..model.base import load_base
from .checkpoints import FOLDER
from .event_log import replay
from .events import Evaluated, Event, RolledBack, Sampled, Skipped, Spiked, Stepped
from .loop import train

CUTS = (1, 5, 9)
UPDATES, ROWS = 10, {"train_data": 64, "val_data": 16}
FILES = ("adapters.safetensors", "optimizer.safetensors")


@dataclass(frozen=True)
class Check:
    """One run that was cut off without warning after `cut` updates: what of it is equal to the whole run."""

    cut: int
    adapter: bool
    optimizer: bool
    events: bool

    @property
    def passed(self) -> bool:
        """Whether all of it is equal."""
        return self.adapter and self.optimizer and self.events


def resume_check(model: str = "mini", done: Callable[[Check], object] = lambda check: None) -> list[Check]:
    """Train a few updates with dropout, accumulation, packing, warm-up and early stopping on; then again, cut
    off after each of `CUTS` updates. `done` is told of each check. Takes well under a minute."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, count in ROWS.items():
            rows = (HOME / f"data/{file}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            (folder / f"{file}.jsonl").write_text("".join(rows), encoding="utf-8")
        config = Config.of(
            "mini",
            model=model,
            dropout=0.1,
            batch_size=4,
            grad_accumulation_steps=2,
            warmup_ratio=0.3,
            max_steps=UPDATES,
            eval_every=5,
            save_every=3,
            early_stopping_patience=5,
            train_data=str(folder / "train_data.jsonl"),
            val_data=str(folder / "val_data.jsonl"),
        )
        base = load_base(Config(model=model))
        data = load_data(config, base)
        whole = list(train(config, base, data, folder / "whole"))
        checks = []
        for cut in CUTS:
            run = folder / f"cut-{cut}"
            events: list[Event] = []
            for event in train(config, load_base(Config(model=model)), data, run):
                events.append(event)
                if isinstance(event, Stepped) and event.step == cut:
                    break
            events += train(config, load_base(Config(model=model)), data, run)
            last = f"{FOLDER}/step-{UPDATES:06d}"
            adapter, optimizer = (
                (run / last / file).read_bytes() == (folder / "whole" / last / file).read_bytes()
                for file in FILES
            )
            checks.append(Check(cut, adapter, optimizer, numbers(replay(events)) == numbers(whole)))
            done(checks[-1])
    return checks


def numbers(events: Sequence[Event]) -> list[dict[str, Any]]:
    """What a run computed, without times and memory: equal for equal runs."""
    kinds = (Stepped, Evaluated, Sampled, Skipped, Spiked, RolledBack)
    apart = {"time", "seconds", "peak_memory_gb"}
    return [
        {"event": type(event).__name__, **{k: v for k, v in asdict(event).items() if k not in apart}}
        for event in events
        if isinstance(event, kinds)
    ]
