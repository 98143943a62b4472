"""A run's state to a checkpoint and back: weights, optimizer, and where training stands."""

import errno
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from ..config import Config
from ..errors import UserError, disk_error
from ..files import atomic_dir, write_checksums
from ..model.adapters import WEIGHTS, save_adapter, save_arrays
from ..model.cpu.blas import cores
from ..model.machine import on_cpu
from .checkpoints import BEST, MEASURED, checkpoint_bytes, checkpoints, contents, name_of, versions
from .step import Step

# How disks without symbolic links (exFAT, network drives, Google Drive in Colab) say so.
NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


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


def save(run: Path, state: State, config: Config, data: dict[str, str], base: str, step: Step) -> None:
    """Write the checkpoint of `state` in the folder `run`; `data` are the fingerprints of the data files.

    Older checkpoints go, as the config says. Raises `UserError`, a `DiskFullError` when there is no room.
    """
    about = {
        "state": asdict(state),
        "config": config.model_dump(mode="json"),
        "data": data,
        "versions": versions(),
        "machine": _machine(),
    }
    with atomic_dir(run / name_of(state.step)) as folder:
        save_adapter(step.model, config, base, folder)
        save_arrays(folder / "optimizer.safetensors", dict(tree_flatten(step.state)))
        (folder / "state.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        write_checksums(folder)
    for old in checkpoints(run)[config.keep_last :]:
        shutil.rmtree(old, ignore_errors=True)


def save_best(run: Path, config: Config, base: str, model: nn.Module, state: State) -> None:
    """Write the adapter, and what was measured of it as `state` says, that `best` in the folder `run` leads
    to: a link, and at every moment to a whole one. On a disk that has no links `best` is the folder itself;
    see `best`.

    Raises `UserError`, a `DiskFullError` when there is no room.
    """
    place, link = run / BEST, run / f".{BEST}"
    folder = run / f".{BEST}-{state.step:06d}-{time.time_ns():x}"
    before = place.resolve()  # stays, for whoever is reading it
    try:
        if (place.is_dir() and not place.is_symlink()) or not _made_link(link, folder.name):
            folder = place
        with atomic_dir(folder) as partial:
            save_adapter(model, config, base, partial)
            measured = {"step": state.best_step, "loss": state.best_loss}
            (partial / MEASURED).write_text(json.dumps(measured) + "\n", encoding="utf-8")
            write_checksums(partial)
        if folder != place:
            os.replace(link, place)
    except OSError as error:
        raise disk_error(error, place) from None
    for old in set(run.glob(f".{BEST}-*")) - {folder, run / before.name}:
        shutil.rmtree(old, ignore_errors=True)


def _made_link(link: Path, target: str) -> bool:
    """Make `link` lead to `target`; False on a disk that has no links."""
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        return True
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return False


def restore(checkpoint: Path, step: Step) -> State:
    """Put the weights and the optimizer's state of `checkpoint` back; returns where training stood, but with
    the learning rate of `step.config` if the checkpoint was made with another.

    Raises `UserError` when the adapter has another shape than the one in training.
    """
    weights: Any = mx.load(str(checkpoint / WEIGHTS))
    shapes = {name: array.shape for name, array in tree_flatten(step.model.trainable_parameters())}
    if shapes != {name: array.shape for name, array in weights.items()}:
        raise UserError(
            f"o adaptador em {checkpoint} tem outra forma (rank, camadas ou módulos): comece um treino novo"
        )
    step.model.load_weights(list(weights.items()), strict=False)
    arrays: Any = mx.load(str(checkpoint / "optimizer.safetensors"))
    step.restore(tree_unflatten(list(arrays.items())))
    about = contents(checkpoint)
    state = State(**about["state"])
    if "lowest" not in about["state"] and state.best_step:  # of a version that evaluated as planned only
        state.lowest = state.best_loss
    if about["config"]["learning_rate"] != step.config.learning_rate:
        state.learning_rate = step.config.learning_rate
    return state


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
    about = contents(checkpoint)
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
