"""Checkpoints as they lie in the folder of a run: which are whole, what made them, and the best adapter."""

import json
import platform
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.sources import fingerprint
from ..files import put_back, verify
from ..text import plain
from .events import Event, best_of

BEST = "best"
MEASURED = "measured.json"  # in the folder of the best adapter: its step and loss
FOLDER = "checkpoints"
NAME = re.compile("step-[0-9]{6,}")
# What changes nothing in the numbers of a run, and so may be another when it goes on.
FREE = {"profile", "probes", "save_every", "keep_last", "hosts"}


def best(run: Path) -> Path | None:
    """The adapter that `save_best` wrote last in the folder `run`, if there is one: without links there is an
    instant in which only the one before has a name."""
    return next((path for path in (run / BEST, run / f".{BEST}.old") if path.is_dir()), None)


def measured(adapter: Path, events: Sequence[Event]) -> dict[str, Any]:
    """The step and the validation loss of the very `adapter` in that folder of the run whose `events` these
    are; the loss is None when it was never evaluated."""
    if NAME.fullmatch(adapter.name):
        return {"step": step_of(adapter), "loss": None}
    with suppress(FileNotFoundError):  # an older version wrote none
        return json.loads((adapter / MEASURED).read_text(encoding="utf-8"))
    kept = best_of(events)
    return {"step": kept and kept.step, "loss": kept and kept.loss}


def tidy(run: Path) -> None:
    """Clear away what a worker that died left half done in the folder `run`; to be called under its lock."""
    for old in [*(run / FOLDER).glob(".step-*.old"), run / f".{BEST}.old"]:
        put_back(old.with_name(old.name.removeprefix(".").removesuffix(".old")))
    for pattern in (f"{FOLDER}/.step-*", f"..{BEST}-*", f".{BEST}.*"):
        for leftover in run.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints in the folder `run`, newest first, damaged ones too; not what else is there, such as a
    copy that a file manager made."""
    found = (run / FOLDER).glob("step-*")
    return sorted((path for path in found if NAME.fullmatch(path.name)), key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The update after which `checkpoint` was written."""
    return int(checkpoint.name.removeprefix("step-"))


def name_of(step: int) -> str:
    """Where in the folder of a run the checkpoint after update `step` is."""
    return f"{FOLDER}/step-{step:06d}"


def latest(run: Path) -> Path | None:
    """The newest whole checkpoint in the folder `run`, if there is one."""
    return next((one for one in checkpoints(run) if verify(one) is None), None)


def fingerprints(config: Config) -> dict[str, str]:
    """The fingerprint of each data file of `config`, by setting; raises `UserError` if one is not there."""
    files = {"train_data": config.train_data, "val_data": config.val_data}
    return {name: fingerprint(source) for name, source in files.items() if source}


def _said(value: object) -> object:
    return "nenhum" if value is None else plain(value) if isinstance(value, float) else value


def changes(checkpoint: Path, config: Config, data: dict[str, str]) -> list[str]:
    """In what `config` and the data files differ from those that `checkpoint` was trained with, in words."""
    about, new = contents(checkpoint), config.model_dump(mode="json")
    # A setting that is newer than the checkpoint had its default.
    old = {**Config().model_dump(mode="json"), **about["config"]}
    settings = [
        f"{name}: {_said(old[name])} → {_said(value)}"
        for name, value in new.items()
        if name not in FREE and old[name] != value
    ]
    return settings + [
        f"o ficheiro {new[name]} mudou"
        for name, digest in data.items()
        if about["data"].get(name) != digest and old[name] == new[name]
    ]


def checkpoint_bytes(trainable: int) -> int:
    """What a checkpoint of `trainable` parameters takes: the adapter and two moments, in 32 bits."""
    return 3 * 4 * trainable


def versions() -> dict[str, str]:
    """What computes, by name: Python and the packages that decide the numbers."""
    packages = ("farense-qlora", "mlx", "mlx-lm", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def contents(checkpoint: Path) -> dict[str, Any]:
    """What `checkpoint` says of itself: the state of training, config, fingerprints, what computed it."""
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
