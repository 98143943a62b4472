"""Several adapters on one base as a new one, in a run like any other: the exact sum of what they add, checked
before it is there."""

import time
from collections.abc import Mapping, Sequence
from contextlib import closing

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..answers.perplexity import row_scores
from ..config import Config
from ..data.load import load_data
from ..errors import UserError
from ..files import atomic_dir
from ..model.adapters import attach, lora_layers, put_layers, take_off
from ..model.base import Base, check_same_base, load_base
from ..model.from_adapter import Adapter, Arrays, read_adapter
from ..text import scientific
from ..training.checkpoints import BEST
from ..training.event_log import EventWriter
from ..training.events import Evaluated, Finished, Merged
from ..training.run import Run, free_folder
from ..training.saving import State, save_best
from .verify import ROUNDING, Progress, Reference, divergence, logits_of, measure

# In 16 bits, what rounding may be of the base's divergence: 30 layers in bfloat16 came to 2·10⁻⁵ of it.
ROUNDED = 0.01


def merge(
    runs: Sequence[str],
    weights: Sequence[float] = (),
    *,
    name: str,
    progress: Progress = lambda *_: None,
) -> Run:
    """Make the run `name` of the best adapters of the `runs` called so, each times its weight, or of their
    mean where there are no `weights`; settings and data are those of the first.

    The update of a layer is exactly the weighted sum of theirs, in which who has none there counts as zero:
    A beside A and B beside B, scale and weight in B, so that the rank is the sum of their ranks. The run is
    there only once what was written gives, on validation rows, the logits of the base with all those adapters
    on it, to rounding; `progress` is told what is asked, how many are done and of how many.

    Raises `UserError` when it does not give them, and when a run is not there or has no adapter, the bases
    differ, there are not as many weights as runs, or the name is taken.

    >>> fq.merge(["decorado", "exemplo"], name="junto").config.rank
    64
    """
    start, those = time.perf_counter(), [Run.open(one) for one in runs]
    if len(runs) < 2:
        raise UserError("para juntar adaptadores diga pelo menos dois treinos")
    shares = [float(weight) for weight in weights] or [1 / len(runs)] * len(runs)
    if len(shares) != len(runs):
        raise UserError(
            f"os treinos são {len(runs)} e os pesos {len(shares)}: dê um peso a cada treino, ou nenhum para "
            "a média"
        )
    folder = free_folder(name)
    check_same_base({run.name: run.config for run in those})
    adapters = [read_adapter(run.best_adapter.resolve()) for run in those]
    config = _config([run.config for run in those], adapters)
    base = load_base(config)
    validation = load_data(config, base).validation
    attach(base.model, config)
    joined = _joined(dict(tree_flatten(base.model.trainable_parameters())), adapters, shares)
    base.model.load_weights(list(joined.items()), strict=False)
    losses, _, _, tokens = row_scores(base, validation)
    loss = float(losses.sum() / tokens.sum())
    with atomic_dir(folder) as partial:
        state = State(learning_rate=config.learning_rate, best_loss=loss)
        save_best(partial, config, base.name, base.model, state)
        take_off(base.model)
        _check(base, measure(base, partial / BEST, validation, progress=progress), adapters, shares, progress)
        config.write(partial / "config.json")
        took = time.perf_counter() - start
        with closing(EventWriter(partial)) as log:
            log.write(Merged(step=0, runs=tuple(run.name for run in those), weights=tuple(shares)))
            log.write(Evaluated(step=0, epoch=0, loss=loss, best=True, seconds=took))
            log.write(Finished(step=0, reason="completed", best_step=0, best_loss=loss, seconds=took))
    return Run(folder)


def _check(
    base: Base, found: Reference, adapters: Sequence[Adapter], weights: Sequence[float], progress: Progress
) -> None:
    """Raise `UserError` unless what was `found` of the adapter on `base` is what all `adapters` give it."""
    take_off(base.model)
    put_layers(base.model, _on_top([lora_layers(base.model, one.folder) for one in adapters], weights))
    logits = logits_of(base.model, found.rows, "soma dos adaptadores", progress)
    apart, most = divergence(logits, found.logits), ROUNDING
    if found.dtype != mx.float32:
        most = max(most, ROUNDED * divergence(logits, found.logits_base))
    if not apart <= most:
        raise UserError(
            f"o que se gravou não é a soma dos adaptadores (divergência {scientific(apart)}, máximo "
            f"{scientific(most)}), e não foi guardado: experimente pesos menores"
        )


def _config(configs: Sequence[Config], adapters: Sequence[Adapter]) -> Config:
    """The settings of the sum of `adapters`, made as `configs` say: those of the first, with all the layers
    that one of them has, and a scale alpha / rank of 1."""
    names = {name for adapter in adapters for name in adapter.weights}
    modules, layers = tuple(sorted({name.split(".")[-2] for name in names})), -1
    for config, adapter in zip(configs, adapters, strict=True):
        if adapter.weights.keys() == names:
            modules, layers = config.target_modules, config.num_layers
    rank = sum(adapter.rank for adapter in adapters)
    alone = {"alpha": float(rank), "target_modules": modules, "num_layers": layers, "from_adapter": ""}
    return configs[0].changed(rank=rank, **alone)


def _joined(fresh: Arrays, adapters: Sequence[Adapter], weights: Sequence[float]) -> Arrays:
    """The matrices of the sum of `adapters`, in the shapes and types of `fresh`."""
    joined = {}
    for name, array in fresh.items():
        first = name.endswith("lora_a")
        # A is (inputs, rank) and B (rank, outputs); of several experts both are the other way round.
        axis = -1 if first == (array.ndim == 2) else -2
        parts = []
        for adapter, weight in zip(adapters, weights, strict=True):
            shape = list(array.shape)
            shape[axis] = adapter.rank
            part = adapter.weights.get(name, mx.zeros(shape)).astype(array.dtype)
            parts.append(part if first else weight * adapter.scale * part)
        joined[name] = mx.concatenate(parts, axis)
    return joined


def _on_top(adapters: Sequence[Mapping[str, nn.Module]], weights: Sequence[float]) -> dict[str, nn.Module]:
    """The layers of all `adapters`, each on top of the one before, which it takes for the base's; what it
    adds is added `weights` times."""
    tops: dict[str, nn.Module] = {}
    for layers, weight in zip(adapters, weights, strict=True):
        for name, layer in layers.items():
            layer.scale *= weight
            layer.linear = tops.get(name, layer.linear)
            tops[name] = layer
    return tops
