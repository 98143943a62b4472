"""LoRA adapters through mlx-lm's own layers, stored in mlx-lm's format: what is made here loads there."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.utils import linear_to_lora_layers, load_adapters

from ..config import Config
from ..errors import UserError

EXPERTS = (SwitchLinear, QuantizedSwitchLinear)
LINEAR = (nn.Linear, nn.QuantizedLinear, *EXPERTS)
# What mlx-lm calls the layers that choose among experts.
ROUTERS = {"gate", "router", "shared_expert_gate"}
WEIGHTS, DESCRIPTION = "adapters.safetensors", "adapter_config.json"


def attach(model: nn.Module, config: Config) -> None:
    """Add fresh LoRA layers to the frozen `model`: every linear layer of a block but experts and what chooses
    among them, or those the config names.

    The update is `alpha / rank * B A x` (Hu et al., 2021, LoRA); B starts at zero. Raises `UserError` when no
    layer that gets an adapter is called as the config says, or there is nothing to train.
    """
    mx.random.seed(config.seed)
    described = _description(model, config)
    try:
        linear_to_lora_layers(model, described["num_layers"], described["lora_parameters"])
    except ValueError as error:  # what is linear in one block may be another kind of layer in the next
        raise UserError(f"target_modules: não sei adaptar todas estas camadas ({error})") from None
    if not tree_flatten(model.trainable_parameters()):
        raise UserError("o adaptador não tem parâmetros: nenhuma das camadas escolhidas é linear")
    model.train()


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Put the adapter in `folder` (adapters.safetensors + adapter_config.json) on `model`, for inference.

    Raises `UserError` when it is not there, is damaged, or was made for another model.
    """
    for name in (DESCRIPTION, WEIGHTS):
        adapter_file(folder, name)
    try:
        load_adapters(model, str(folder))
    except RuntimeError:
        raise UserError(f"{folder / WEIGHTS} está danificado: exporte-o de novo") from None
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"o adaptador em {folder} foi feito para outro modelo base") from None
    model.eval()


def lora_layers(model: nn.Module, folder: Path) -> dict[str, nn.Module]:
    """The layers that the adapter in `folder` gives `model`, by name and in memory; they are not on it, until
    `put_layers` puts them there. Raises `UserError` as `load_adapter` does."""
    load_adapter(model, folder)
    layers = take_off(model)
    mx.eval([layer.parameters() for layer in layers.values()])
    return layers


def take_off(model: nn.Module) -> dict[str, nn.Module]:
    """Put the base's layers back in the place of the LoRA layers of `model`; returns those, by name."""
    layers = {name: layer for name, layer in model.named_modules() if "lora_a" in layer}
    put_layers(model, {name: layer.linear for name, layer in layers.items()})
    return layers


def put_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put `layers` in the place of those of `model` that are called so; nothing is copied."""
    model.update_modules(tree_unflatten(list(layers.items())))


def adapter_file(folder: Path, name: str) -> Path:
    """The file `name` of the adapter in `folder`; raises `UserError` when there is none."""
    if not (folder / name).is_file():
        raise UserError(f"a pasta {folder} não tem um adaptador: falta {name}")
    return folder / name


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[None]:
    """Inside, `model` computes what its base does: the updates `scale * B A x` are multiplied by zero."""
    scales = [(layer, layer.scale) for layer in model.modules() if "lora_a" in layer]
    try:
        for layer, _ in scales:
            layer.scale = 0.0
        yield
    finally:
        for layer, scale in scales:
            layer.scale = scale


@contextmanager
def other_adapter(model: nn.Module, folder: Path) -> Iterator[None]:
    """Inside, `model` has the weights of the adapter in `folder` in place of its own, of the same shape."""
    weights: dict[str, mx.array] = mx.load(str(folder / WEIGHTS))  # type: ignore[assignment]
    own = [(name, array) for name, array in tree_flatten(model.parameters()) if name in weights]
    try:
        model.load_weights(list(weights.items()), strict=False)
        yield
    finally:
        model.load_weights(own, strict=False)


def save_adapter(model: nn.Module, config: Config, base: str, folder: Path) -> None:
    """Write the adapter of `model`, made on `base`, into the existing `folder`; raises `OSError`."""
    save_arrays(folder / WEIGHTS, dict(tree_flatten(model.trainable_parameters())))
    described = {"fine_tune_type": "lora", "model": base, **_description(model, config)}
    (folder / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def save_arrays(path: Path, arrays: dict[str, mx.array]) -> None:
    """Write a safetensors file, the same bytes for the same arrays in any order; unlike mlx given a path,
    raises `OSError` that says what the disk lacks."""
    with open(path, "wb") as file:
        mx.save_safetensors(file, dict(sorted(arrays.items())))


def _description(model: nn.Module, config: Config) -> dict[str, Any]:
    """Which layers of `model` get what adapter, as adapter_config.json says it; raises `UserError`."""
    depth = len(model.layers) if config.num_layers == -1 else min(config.num_layers, len(model.layers))
    scale = config.alpha / config.rank
    parameters: dict[str, Any] = {"rank": config.rank, "scale": scale, "dropout": config.dropout}
    linear = {
        name.removesuffix(".linear"): layer  # that of a LoRA layer
        for block in model.layers[-depth:]
        for name, layer in block.named_modules()
        if isinstance(layer, LINEAR) or hasattr(layer, "to_lora")
    }
    known = {key.split(".")[-1] for key in linear}
    if missing := [name for name in config.target_modules if name not in known]:
        raise UserError(
            f"target_modules: nas camadas que levam adaptador não há {', '.join(missing)} "
            f"(há: {', '.join(sorted(known))})"
        )
    experts = {key for key, layer in linear.items() if isinstance(layer, EXPERTS)}
    if config.target_modules:
        parameters["keys"] = sorted(key for key in linear if key.split(".")[-1] in config.target_modules)
    elif experts:
        parameters["keys"] = sorted(key for key in {*linear} - experts if not ROUTERS & {*key.split(".")})
    return {"num_layers": depth, "lora_parameters": parameters}
