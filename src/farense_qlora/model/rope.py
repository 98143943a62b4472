"""Rotary positions as Transformers means them, under the keys that mlx-lm reads, and a check of the outcome.

Transformers 5 writes `rope_parameters` in config.json where there were `rope_theta`, `rope_scaling` and
`partial_rotary_factor`. Most of mlx-lm's families know only those, and silently take their own defaults.
"""

from inspect import signature
from math import log, pi, sqrt
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.utils import _get_classes

from ..errors import UserError

Settings = dict[str, Any]
# Of what Transformers computes; more is another rotation, and less is how devices differ in their sines.
TOLERANCE = 0.01
# What a configuration may say once for all types of layer.
SHARED = ("rope_theta", "partial_rotary_factor")


def in_old_keys(config: Settings) -> Settings:
    """`config`, as config.json has it, with the rotary positions under the keys that mlx-lm reads as well."""
    changed = {**config, **_old_keys(config)}
    if isinstance(text := config.get("text_config"), dict):
        changed["text_config"] = {**text, **_old_keys(text)}
    return changed


def check_positions(model: nn.Module, config: Settings, name: str) -> None:
    """Raise `UserError`, with the model's `name`, if `model` rotates unlike Transformers does by `config`.

    Only where there are `rope_parameters`, or a part is rotated; what else is in the old keys means what
    mlx-lm makes of it.
    """
    text = config.get("text_config")
    config = text if isinstance(text, dict) and text.get("rope_parameters") else config
    ropes, types = _by_layer_type(config), config.get("layer_types")
    for number, layer in enumerate(model.layers if ropes else ()):
        rope = ropes.get(types[number] if types and len(ropes) > 1 else next(iter(ropes)))
        for path, module in layer.named_modules():
            if rope and path.rpartition(".")[2] in ("rope", "rotary_emb"):
                dims = getattr(module, "dims", None) or getattr(module, "dim", 0)
                if dims and not _rotates(module, dims, rope, config):
                    raise UserError(
                        f"o mlx-lm não calcula as posições do modelo {name} como o transformers (RoPE "
                        f"«{_kind(rope)}», na camada {number}): escolha outro modelo base"
                    )


def _by_layer_type(config: Settings) -> dict[str, Settings]:
    """What `rope_parameters` says of each type of layer, under "" where it is the same for all."""
    rope: Settings = config.get("rope_parameters") or {}
    if not rope and "partial_rotary_factor" in config and not config.get("rope_scaling"):
        rope = {"rope_type": "default"}  # which not every family of mlx-lm reads
    if rope and not any(isinstance(value, dict) for value in rope.values()):
        rope = {"": config.get("rope_scaling") or rope}  # Transformers lets the old key win
    shared = {key: config[key] for key in SHARED if config.get(key) is not None}
    if rope and "rope_theta" not in shared:
        from transformers import CONFIG_MAPPING

        family = config.get("model_type")
        theta = getattr(CONFIG_MAPPING[family], "default_theta", None) if family in CONFIG_MAPPING else None
        shared |= {"rope_theta": theta} if isinstance(theta, float) else {}
    return {
        kind: {**shared, **{key: value for key, value in settings.items() if value is not None}}
        for kind, settings in rope.items()
        if isinstance(settings, dict)
    }


def _old_keys(config: Settings) -> Settings:
    ropes = _by_layer_type(config)
    if not ropes or ("" not in ropes and _reads_layer_types(config)):
        return {}
    rope = ropes.get("full_attention") or next(iter(ropes.values()))
    keys: Settings = {key: rope[key] for key in SHARED if key in rope}
    if _kind(rope) != "default":
        scaling = {key: value for key, value in rope.items() if key not in keys}
        scaling |= {"type": _kind(rope), "rope_type": _kind(rope)}
        if "factor" in scaling:
            scaling["factor"] = factor = float(scaling["factor"])
            if _kind(rope) == "yarn" and factor > 1 and not rope.get("mscale_all_dim"):
                stretch = rope.get("attention_factor")
                scaling["mscale"] = (stretch - 1) / (0.1 * log(factor)) if stretch else 1.0
        if _kind(rope) in ("llama3", "yarn", "longrope"):
            scaling["original_max_position_embeddings"] = _trained_length(rope, config)
        keys["rope_scaling"] = scaling
    if local := ropes.get("sliding_attention"):
        if "rope_theta" in local:
            keys["rope_local_base_freq"] = local["rope_theta"]
        types = config.get("layer_types") or ()
        if "full_attention" in types and "sliding_window_pattern" not in config:
            keys["sliding_window_pattern"] = types.index("full_attention") + 1
    return keys


def _reads_layer_types(config: Settings) -> bool:
    """Whether mlx-lm reads `rope_parameters` itself; Transformers then knows no old keys for this family."""
    try:
        return "rope_parameters" in signature(_get_classes(config)[1]).parameters
    except (KeyError, ValueError):  # said when the model is loaded
        return False


def _kind(rope: Settings) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _rotates(module: nn.Module, dims: int, rope: Settings, config: Settings) -> bool:
    """Whether `module` turns its `dims` by the angles, and stretches them by the factor, of `rope`."""
    try:  # the unit vectors at position 1 show the angles
        turned = np.array(module(mx.eye(dims)[:, None, None], offset=1), np.float64)[:, 0, 0]
    except TypeError:  # it lacks what this rotation needs to know
        return False
    lengths, cosines = np.linalg.norm(turned, axis=1), turned.diagonal()
    sines = np.linalg.norm(turned - np.diag(cosines), axis=1)
    angles, stretch = _angles(rope, dims, config)
    return len(angles) * 2 == dims and bool(
        np.allclose(lengths, stretch, TOLERANCE, 0)
        and np.allclose(np.sort(np.arctan2(sines, cosines))[::2], np.sort(angles), TOLERANCE, 1e-12)
    )


def _angles(rope: Settings, dims: int, config: Settings) -> tuple[np.ndarray, float]:
    """The angles between one position and the next, and the factor on both: as Transformers computes them for
    texts no longer than the model was trained for (`modeling_rope_utils`)."""
    kind = _kind(rope)
    if "partial_rotary_factor" in rope and kind != "proportional":
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        dims = int(size * rope["partial_rotary_factor"])
    angles = 1 / np.float64(rope["rope_theta"]) ** (np.arange(0, dims, 2) / dims)
    first = _trained_length(rope, config)
    factor = rope.get("factor") or (config["max_position_embeddings"] / first if first else 1.0)
    if kind in ("default", "dynamic", "mrope"):
        return angles, 1.0
    if kind == "linear":
        return angles / factor, 1.0
    if kind == "proportional":
        turning = int(rope.get("partial_rotary_factor", 1.0) * dims // 2)
        return np.where(np.arange(dims // 2) < turning, angles / rope.get("factor", 1.0), 0), 1.0
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = first * angles / (2 * pi)
        share = np.clip((turns - low) / (high - low), 0, 1)
        return angles * (share + (1 - share) / factor), 1.0
    if kind == "yarn":
        edges = [
            dims * log(first / (turns * 2 * pi)) / (2 * log(rope["rope_theta"]))
            for turns in (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
        ]
        if rope.get("truncate", True):
            edges = [np.floor(edges[0]), np.ceil(edges[1])]
        low, high = max(edges[0], 0), min(edges[1], dims - 1)
        share = np.clip((np.arange(dims // 2) - low) / max(high - low, 0.001), 0, 1)
        both = rope.get("mscale") and rope.get("mscale_all_dim")
        mscales = (rope["mscale"], rope["mscale_all_dim"]) if both else (1.0, 0.0)
        scales = [0.1 * m * log(factor) + 1 if factor > 1 else 1 for m in mscales]
        return angles * (1 - share + share / factor), rope.get("attention_factor") or scales[0] / scales[1]
    if kind == "longrope":
        stretch = sqrt(1 + log(factor) / log(first)) if factor > 1 else 1.0
        return angles / np.array(rope["short_factor"]), rope.get("attention_factor") or stretch
    return np.array([]), 1.0


def _trained_length(rope: Settings, config: Settings) -> int:
    """The positions that the model knew before they were stretched."""
    key = "original_max_position_embeddings"
    return int(config.get(key) or rope.get(key) or config.get("max_position_embeddings") or 0)
