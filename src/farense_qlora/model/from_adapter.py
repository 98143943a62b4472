"""Go on from an adapter that exists, ours, mlx-lm's or PEFT's, if its shapes are those of the config."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..config import Config
from ..errors import UserError
from ..files import CHECKSUMS, sha256
from .adapters import DESCRIPTION, WEIGHTS, adapter_file

PEFT_WEIGHTS, PEFT_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
PEFT_NAME = re.compile(r"^base_model\.model\.(.+)\.lora_([AB])\.weight$")
# How PEFT may have made A and B at first; what is not here has changed the base's weights as well.
INITS = (True, False, None, "gaussian", "eva", "orthogonal")
# What makes of PEFT's LoRA something else.
SPECIAL = ("use_qalora", "use_bdlora", "alora_invocation_tokens", "layer_replication")

Arrays = dict[str, mx.array]


class Adapter(NamedTuple):
    """What is in `folder`: of each layer that it changes, "layer.lora_a" and "layer.lora_b" as in mlx-lm."""

    folder: Path
    weights: Arrays
    rank: int
    scale: float


def start_from(model: nn.Module, config: Config, folder: Path) -> None:
    """Give the fresh LoRA layers of `model`, made as `config` says, the weights of the adapter in `folder`.

    Raises `UserError` when there is none, when it is damaged or of another kind than LoRA, when it was made
    for another base model, and when rank, scale, modules or layers are not those of `config`: it then says
    with which flags they would be.
    """
    adapter = read_adapter(folder)
    fresh: Arrays = dict(tree_flatten(model.trainable_parameters()))
    sizes = _linear_layers(model)
    _check_base(model, sizes, adapter)
    _check_config(len(model.layers), config, fresh, sizes, adapter)
    weights = [(name, array.astype(fresh[name].dtype)) for name, array in adapter.weights.items()]
    model.load_weights(weights, strict=False)
    mx.eval(model.parameters())


def read_adapter(folder: Path) -> Adapter:
    """The LoRA adapter in `folder`, in mlx-lm's format or PEFT's; raises `UserError` as `start_from` does."""
    if not folder.is_dir():
        raise UserError(f"não encontro a pasta do adaptador de onde partir: {folder}")
    try:
        described = dict(json.loads(adapter_file(folder, DESCRIPTION).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(f"{folder / DESCRIPTION} está danificado: não se pode partir dele") from None
    if kind := _other_kind(described):
        raise UserError(f"o adaptador em {folder} é do tipo {kind}: só se pode partir de LoRA simples")
    peft = "peft_type" in described
    if peft and not (folder / PEFT_WEIGHTS).exists() and (folder / PEFT_PICKLE).exists():
        raise UserError(
            f"{folder / PEFT_PICKLE} é um ficheiro pickle, que pode correr código ao abrir-se: grave o "
            f"adaptador em {PEFT_WEIGHTS}"
        )
    weights = _weights(adapter_file(folder, PEFT_WEIGHTS if peft else WEIGHTS))
    if peft:
        weights = {
            PEFT_NAME.sub(lambda found: f"{found[1]}.lora_{found[2].lower()}", name): mx.contiguous(array.T)
            for name, array in weights.items()
        }
    pairs = {f"{layer}.{matrix}" for layer in _layers(weights) for matrix in ("lora_a", "lora_b")}
    if strange := sorted(pairs ^ set(weights)):
        raise UserError(f"o adaptador em {folder} não tem só matrizes de LoRA, aos pares: veja {strange[0]}")
    # A is (inputs, rank), or (experts, rank, inputs) where there are several.
    ranks = {array.shape[-1 if array.ndim == 2 else -2] for name, array in weights.items() if name[-1] == "a"}
    if len(ranks) != 1 or described.get("alpha_pattern"):
        raise UserError(
            f"o adaptador em {folder} não tem o mesmo rank e a mesma escala em todas as camadas: não se pode "
            "partir dele"
        )
    (rank,) = ranks
    try:
        if peft:
            scale = described["lora_alpha"] / (math.sqrt(rank) if described.get("use_rslora") else rank)
        else:
            scale = described["lora_parameters"]["scale"]
        return Adapter(folder, weights, rank, float(scale))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{folder / DESCRIPTION} não diz a escala do adaptador") from None


def _other_kind(described: dict[str, Any]) -> str:
    """What kind of adapter it is that `described` says, when not plain LoRA; else nothing."""
    if "peft_type" not in described:
        kind = str(described.get("fine_tune_type", "lora"))
        return {"lora": "", "dora": "DoRA"}.get(kind, f"«{kind}»")
    if described["peft_type"] != "LORA":
        return f"«{described['peft_type']}»"
    if described.get("use_dora"):
        return "DoRA"
    if (init := described.get("init_lora_weights", True)) not in INITS:
        return f"LoRA com init_lora_weights «{init}», que muda também a base"
    return next((f"LoRA com {name}" for name in SPECIAL if described.get(name)), "")


def _weights(path: Path) -> Arrays:
    """The arrays in the file `path`, whole and finite; raises `UserError`."""
    try:
        sums = json.loads((path.parent / CHECKSUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        sums = {}  # others write none
    try:
        weights: Any = mx.load(str(path))
        whole = sums.get(path.name, sha256(path)) == sha256(path)
        whole = whole and all(one.ndim > 1 and mx.isfinite(one).all().item() for one in weights.values())
    except (RuntimeError, ValueError, OSError, AttributeError):
        whole = False
    if not whole or not weights:
        raise UserError(f"{path} está danificado: não se pode partir dele")
    return dict(weights)


def _check_base(model: nn.Module, sizes: dict[str, tuple[int, int]], adapter: Adapter) -> None:
    """Raise `UserError` unless each layer of `adapter` is one of `model`'s, with its inputs and outputs."""
    names = {name for name, _ in model.named_modules()}
    for layer in sorted(_layers(adapter.weights)):
        theirs = adapter.weights[f"{layer}.lora_a"].shape[0], adapter.weights[f"{layer}.lora_b"].shape[-1]
        here = sizes.get(layer, theirs)
        if layer not in names:
            why = f"muda {layer}, que este não tem"
        elif here != theirs:
            why = f"{layer} tem lá {theirs[0]} entradas e {theirs[1]} saídas, e aqui {here[0]} e {here[1]}"
        else:
            continue
        raise UserError(f"o adaptador em {adapter.folder} foi feito para outro modelo base: {why}")


def _check_config(depth: int, config: Config, fresh: Arrays, linear: Iterable[str], adapter: Adapter) -> None:
    """Raise `UserError`, with the flags that would make it fit, unless `adapter` is as `config` trains: the
    arrays `fresh`, on some of the `linear` layers of a model of `depth` blocks."""
    mine, theirs = _layers(fresh), _layers(adapter.weights)
    modules, blocks = set(map(_module, theirs)), set(map(_block, theirs))
    last = range(depth - len(blocks), depth)
    trainable = {x for x in {*linear, *mine} if _block(x) in last and _module(x) in modules}
    if theirs not in (mine, trainable):
        raise UserError(
            f"o adaptador em {adapter.folder} não muda os mesmos módulos em cada um dos últimos blocos, que "
            "é o que aqui se treina: não se pode partir dele"
        )

    def flags(rank: int, alpha: float, layers: set[str]) -> dict[str, str]:
        return {
            "rank": str(rank),
            "alpha": f"{alpha:.12g}",
            "target-modules": " ".join(sorted(set(map(_module, layers)))),
            "num-layers": str(len(set(map(_block, layers)))),
        }

    here = flags(config.rank, config.alpha, mine)
    there = flags(adapter.rank, adapter.scale * adapter.rank, theirs)
    if differ := [name for name in here if here[name] != there[name]]:
        said = "; ".join(f"{name} {there[name]} (aqui {here[name]})" for name in differ)
        use = " ".join(f"--{name} {there[name]}" for name in differ)
        raise UserError(f"o adaptador em {adapter.folder} tem {said}: para partir dele use {use}")
    if any(array.shape != fresh[name].shape for name, array in adapter.weights.items()):
        raise UserError(f"o adaptador em {adapter.folder} tem matrizes que não encaixam neste modelo")


def _linear_layers(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The inputs and outputs of each linear layer of `model`, with LoRA or without, by its name."""
    sizes = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.QuantizedLinear):
            outputs, inputs = layer.weight.shape
            inputs = inputs * 32 // layer.bits if isinstance(layer, nn.QuantizedLinear) else inputs
            sizes[name.removesuffix(".linear")] = inputs, outputs  # LoRA's name for the layer in it
    return sizes


def _layers(weights: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in weights}


def _module(layer: str) -> str:
    return layer.rpartition(".")[2]


def _block(layer: str) -> int:
    """The number of the block that `layer` is in; -1 when in none."""
    found = re.search(r"\blayers\.(\d+)\.", layer)
    return int(found[1]) if found else -1
