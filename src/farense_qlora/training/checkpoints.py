"""Checkpoints of a run: all that it needs to go on, each in a folder of its own, whole and with checksums."""

import errno
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ..config import Config
from ..data.sources import fingerprint
from ..errors import UserError, disk_error
from ..files import atomic_dir, put_back, verify, write_checksums
from ..model.adapters import save_adapter, save_arrays
from ..model.cpu.blas import cores
from ..model.machine import on_cpu
from .events import Event, best_of
from .step import Step

BEST = "best"
MEASURED = "measured.json"  # in the folder of the best adapter: its step and loss
FOLDER = "checkpoints"
# How disks without symbolic links (exFAT, network drives, Google Drive in Colab) say so.
NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
NAME = re.compile("step-[0-9]{6,}")
# What changes nothing in the numbers of a run, and so may be another when it goes on.
FREE = {"profile", "probes", "save_every", "keep_last"}


@dataclass(kw_only=True)
class State:
    """Where training stands besides weights and optimizer.

    `learning_rate` is the schedule's peak, `evaluated` the step of the last evaluation, and the last `losses`
    say what is out of the ordinary. The best is that of all evaluations; early stopping looks at the `lowest`
    loss of the planned ones, which a stop does not add to.
    """

    learning_rate: float
    step: int = 0
    evaluated: int = -1
    best_step: int = 0
    best_loss: float | None = None
    lowest: float | None = None
    evaluations_since_best: int = 0
    skipped_in_a_row: int = 0
    rollbacks: int = 0
    losses: list[float] = field(default_factory=list)


def save(run: Path, state: State, config: Config, data: dict[str, str], base: str, step: Step) -> str:
    """Write `checkpoints/step-NNNNNN` in the folder `run` and return that relative path.

    `data` are the fingerprints of the data files. Older checkpoints go, as the config says. Raises
    `UserError`, a `DiskFullError` when there is no room.
    """
    name = f"{FOLDER}/step-{state.step:06d}"
    about = {
        "state": asdict(state),
        "config": config.model_dump(mode="json"),
        "data": data,
        "versions": versions(),
        "machine": _machine(),
    }
    with atomic_dir(run / name) as folder:
        save_adapter(step.model, config, base, folder)
        save_arrays(folder / "optimizer.safetensors", dict(tree_flatten(step.state)))
        (folder / "state.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        write_checksums(folder)
    for old in checkpoints(run)[config.keep_last :]:
        shutil.rmtree(old, ignore_errors=True)
    return name


def save_best(run: Path, config: Config, base: str, model: nn.Module, state: State) -> None:
    """Write the adapter, and what was measured of it as `state` says, that `best` in the folder `run` leads
    to: a link, and at every moment to a whole one. On a disk that has no links `best` is the folder itself;
    see `best`.

    Raises `UserError`, a `DiskFullError` when there is no room.
    """
    target, link = run / f".{BEST}-{state.step:06d}-{time.time_ns():x}", run / f".{BEST}"
    before = (run / BEST).resolve()  # stays, for whoever is reading it
    linked = not (run / BEST).is_dir() or (run / BEST).is_symlink()
    if linked:
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(target.name)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise disk_error(error, run / BEST) from None
            linked = False
    with atomic_dir(target if linked else run / BEST) as folder:
        save_adapter(model, config, base, folder)
        measured = {"step": state.best_step, "loss": state.best_loss}
        (folder / MEASURED).write_text(json.dumps(measured) + "\n", encoding="utf-8")
        write_checksums(folder)
    if linked:
        try:
            os.replace(link, run / BEST)
        except OSError as error:
            raise disk_error(error, run / BEST) from None
    for old in set(run.glob(f".{BEST}-*")) - {target, run / before.name}:
        shutil.rmtree(old, ignore_errors=True)


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
        about: dict[str, Any] = json.loads((adapter / MEASURED).read_text(encoding="utf-8"))
        return about
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


def latest(run: Path, damaged: Callable[[Path, str], object] = lambda path, reason: None) -> Path | None:
    """The newest whole checkpoint in the folder `run`, if there is one; `damaged` is told of each that is
    newer but not whole, and why."""
    for checkpoint in checkpoints(run):
        if (reason := verify(checkpoint)) is None:
            return checkpoint
        damaged(checkpoint, reason)
    return None


def restore(checkpoint: Path, step: Step) -> State:
    """Put the weights and the optimizer's state of `checkpoint` back; returns where training stood, but with
    the learning rate of `step.config` if the checkpoint was made with another.

    Raises `UserError` when the adapter has another shape than the one in training.
    """
    weights: Any = mx.load(str(checkpoint / "adapters.safetensors"))
    shapes = {name: array.shape for name, array in tree_flatten(step.model.trainable_parameters())}
    if shapes != {name: array.shape for name, array in weights.items()}:
        raise UserError(
            f"o adaptador em {checkpoint} tem outra forma (rank, camadas ou módulos): comece um treino novo"
        )
    step.model.load_weights(list(weights.items()), strict=False)
    arrays: Any = mx.load(str(checkpoint / "optimizer.safetensors"))
    step.restore(tree_unflatten(list(arrays.items())))
    about = _about(checkpoint)
    state = State(**about["state"])
    if "lowest" not in about["state"] and state.best_step:  # of a version that evaluated as planned only
        state.lowest = state.best_loss
    if about["config"]["learning_rate"] != step.config.learning_rate:
        state.learning_rate = step.config.learning_rate
    return state


def fingerprints(config: Config) -> dict[str, str]:
    """The fingerprint of each data file of `config`, by setting; raises `UserError` if one is not there."""
    files = {"train_data": config.train_data, "val_data": config.val_data}
    return {name: fingerprint(source) for name, source in files.items() if source}


def _said(value: object) -> object:
    return "nenhum" if value is None else value


def changes(checkpoint: Path, config: Config, data: dict[str, str]) -> list[str]:
    """In what `config` and the data files differ from those that `checkpoint` was trained with, in words."""
    about, new = _about(checkpoint), config.model_dump(mode="json")
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


def check_room(run: Path, config: Config, trainable: int) -> None:
    """Raise `UserError` unless the checkpoints of `trainable` parameters that will lie side by side in the
    folder `run` have room."""
    needed = checkpoint_bytes(trainable) * (config.keep_last + 2)
    free = shutil.disk_usage(run).free
    if free < needed:
        raise UserError(
            f"o disco de {run} tem {free / 1e6:.0f} MB livres e o treino precisa de "
            f"{needed / 1e6:.0f} MB para os pontos de controlo: liberte espaço ou baixe keep_last"
        )


def elsewhere(checkpoint: Path) -> str:
    """What computes now and did not when `checkpoint` was made, in Portuguese; empty when all is the same."""
    about = _about(checkpoint)
    before = about.get("machine", {}) | about["versions"]
    other = [
        f"{name} {before[name]}, agora {now}"
        for name, now in (_machine() | versions()).items()
        if before.get(name, now) != now
    ]
    if not other:
        return ""
    return f"{'; '.join(other)}: as linhas são as mesmas, e os números também, a menos de arredondamentos"


def _machine() -> dict[str, str]:
    about = {"processador": str(mx.device_info()["device_name"])}
    return about | ({"núcleos": str(cores())} if on_cpu() else {})


def versions() -> dict[str, str]:
    """What computes, by name: Python and the packages that decide the numbers."""
    packages = ("farense-qlora", "mlx", "mlx-lm", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _about(checkpoint: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    return about
