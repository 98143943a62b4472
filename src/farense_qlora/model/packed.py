"""Rows side by side in one window, none of which sees another: a block-diagonal mask for mlx-lm's models.

With rotary positions the mask alone is exact: attention depends on relative positions only.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models import gemma2
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from ..errors import UserError
from .loss import backbone_and_head

# Of two rows in one window and apart, by how much the hidden states may differ, as a share of their norm:
# 16-bit rounding makes up to 0.04, a row that sees the other 0.9 and more.
LEAK = 0.3


class PackedCache:
    """Stands in for a layer's KV cache, through which mlx-lm's models ask for their mask; it has no past."""

    offset = 0

    def __init__(self, segments: mx.array):
        self.together = (segments[:, :, None] == segments[:, None, :])[:, None]  # (B, 1, L, L)

    def make_mask(self, length: int, return_array: bool = False, window_size: int | None = None) -> mx.array:
        """The mask (B, 1, L, L), true where a position may look; `window_size` is a sliding window."""
        return self.together & create_causal_mask(length, window_size=window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """What it is given, (B, heads, L, D) each: there is no past to put before it."""
        return keys, values


def hidden_states(model: nn.Module, inputs: mx.array, segments: mx.array | None) -> mx.array:
    """The hidden states (B, L, D) of `inputs` (B, L), each position seeing its own segment (B, L) only."""
    cache = None if segments is None else [PackedCache(segments)] * len(model.layers)
    return backbone_and_head(model)[0](inputs, cache=cache)


def group_masks(model: nn.Module) -> None:
    """Let Gemma 2 take a mask for each row (B, 1, L, L): its query heads lie in groups along an axis of their
    own, so that mlx-lm's would hide from one head what it is to hide from one row, or fail."""
    for layer in model.modules():
        if type(layer) is gemma2.Attention:
            layer.__class__ = _GroupedAttention


class _GroupedAttention(gemma2.Attention):
    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if self.repeats > 1 and mask is not None and mask.ndim == 4:
            mask = mask[:, None]
        return super().__call__(x, mask, cache)


def check_packable(model: nn.Module, name: str) -> None:
    """Raise `UserError` unless rows in one window of `model` give what they give alone.

    A state-space layer carries the row before into the next, whatever the mask; for anything else that could,
    two short rows are tried.
    """
    caches = make_prompt_cache(model)
    if not all(isinstance(cache, KVCache | RotatingKVCache) for cache in caches):
        raise UserError(
            f"o modelo {name} tem camadas que não são de atenção (espaço de estados ou semelhantes): não se "
            "pode empacotar; desligue «packing»"
        )
    if "wpe" in backbone_and_head(model)[0]:
        raise UserError(
            f"o modelo {name} conta as posições desde o princípio da janela: não se pode empacotar; desligue "
            "«packing»"
        )
    rows = mx.arange(32).reshape(4, 8)
    alone = hidden_states(model, rows, None).reshape(2, 16, -1)
    packed = hidden_states(model, rows.reshape(2, 16), mx.repeat(mx.array([[1, 2], [1, 2]]), 8, axis=1))
    apart = mx.linalg.norm((packed - alone).astype(mx.float32)) / mx.linalg.norm(alone.astype(mx.float32))
    if not float(apart) <= LEAK:
        raise UserError(
            f"no modelo {name}, linhas na mesma janela veem-se umas às outras: desligue «packing»"
        )
