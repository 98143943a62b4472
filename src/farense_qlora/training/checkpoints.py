"""What a run needs to go on: adapter, optimizer, step and best loss, in one folder, written whole."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from ..config import Config
from ..files import whole_folder
from ..model.adapters import save_adapter


@dataclass
class State:
    """Where training stands besides the weights; `evaluations_since_best` drives early stopping."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_since_best: int = 0


def save(
    run: Path, state: State, config: Config, base: str, model: nn.Module, optimizer: optim.Optimizer
) -> str:
    """Write `checkpoints/step-NNNNNN` in the folder `run` and return that relative path."""
    name = f"checkpoints/step-{state.step:06d}"
    with whole_folder(run / name) as folder:
        save_adapter(model, config, base, folder)
        mx.save_safetensors(str(folder / "optimizer.safetensors"), dict(tree_flatten(optimizer.state)))
        (folder / "state.json").write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    return name


def latest(run: Path) -> Path | None:
    """The newest checkpoint in the folder `run`, if there is one."""
    return max((run / "checkpoints").glob("step-*"), default=None)


def restore(checkpoint: Path, model: nn.Module, optimizer: optim.Optimizer) -> State:
    """Put the weights and the optimizer of `checkpoint` back; returns where training stood."""
    model.load_weights(str(checkpoint / "adapters.safetensors"), strict=False)
    arrays: Any = mx.load(str(checkpoint / "optimizer.safetensors"))
    optimizer.state = tree_unflatten(list(arrays.items()))
    return State(**json.loads((checkpoint / "state.json").read_text(encoding="utf-8")))
