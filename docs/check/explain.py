"""Figures that explain QLoRA, and the arithmetic behind them: what a model takes, what 4 bits lose."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from farense_qlora.model.base import GROUP_SIZE
from farense_qlora.text import decimal
from farense_qlora.ui.figures import TRAIN, VALIDATION, Drawing

# Mistral-7B-v0.3, as its config.json says.
SEVEN_B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 14336,
    "vocab_size": 32768,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}

METHODS = ("afinação completa", "LoRA", "QLoRA")
RANKS = (4, 8, 16, 32, 64)
BITS = (2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Memory:
    """What training keeps besides activations, in GB (10^9 bytes): the base, what is trained, and its
    gradients and moments."""

    base: float
    trained: float
    optimizer: float

    @property
    def total(self) -> float:
        """The sum, in GB."""
        return self.base + self.trained + self.optimizer


def linear_layers(shape: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """The linear layers of one block of a Mistral of `shape`: name to (inputs, outputs)."""
    hidden, wide = shape["hidden_size"], shape["intermediate_size"]
    narrow = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, narrow),
        "v_proj": (hidden, narrow),
        "o_proj": (hidden, hidden),
        "gate_proj": (hidden, wide),
        "up_proj": (hidden, wide),
        "down_proj": (wide, hidden),
    }


def matrix_parameters(shape: Mapping[str, int]) -> int:
    """The parameters of a Mistral of `shape` that are quantized: linear layers, embedding and head."""
    block = sum(inputs * outputs for inputs, outputs in linear_layers(shape).values())
    return shape["num_hidden_layers"] * block + 2 * shape["vocab_size"] * shape["hidden_size"]


def norm_parameters(shape: Mapping[str, int]) -> int:
    """The parameters that stay as they are: two norms a block, and one at the end."""
    return (2 * shape["num_hidden_layers"] + 1) * shape["hidden_size"]


def adapter_parameters(shape: Mapping[str, int], rank: int) -> int:
    """The parameters of an adapter of `rank` on every linear layer: rank * (inputs + outputs) each (Hu et
    al., 2021)."""
    return shape["num_hidden_layers"] * rank * sum(map(sum, linear_layers(shape).values()))


def bits_per_weight(bits: int = 4, group_size: int = GROUP_SIZE) -> float:
    """What a weight takes in MLX's affine quantization: its bits, its share of a 16-bit scale and bias."""
    return bits + 32 / group_size


def memory(shape: Mapping[str, int] = SEVEN_B, rank: int = 16) -> dict[str, Memory]:
    """What each of `METHODS` keeps in memory for a Mistral of `shape`.

    Base weights take 2 bytes, or 4 bits and their scales; what is trained takes 4 bytes, its gradients 4 and
    its two moments 8.
    """
    matrices, norms, adapter = (
        matrix_parameters(shape),
        norm_parameters(shape),
        adapter_parameters(shape, rank),
    )
    trained, optimizer = 4 * adapter / 1e9, 12 * adapter / 1e9
    everything = matrices + norms
    four_bits = (matrices * bits_per_weight() / 8 + norms * 2) / 1e9
    full = Memory(0.0, 4 * everything / 1e9, 12 * everything / 1e9)
    rows = (full, Memory(2 * everything / 1e9, trained, optimizer), Memory(four_bits, trained, optimizer))
    return dict(zip(METHODS, rows, strict=True))


def rounding_error(bits: int, group_size: int = GROUP_SIZE) -> float:
    """How far normally distributed weights lie from their quantized form: root mean square, as a share of
    their standard deviation."""
    weights, back = _there_and_back(bits, group_size)
    return float(np.sqrt(np.mean((weights - back) ** 2)) / weights.std())


def memory_bars() -> Drawing:
    """The memory of each method for Mistral-7B, as bars."""
    figure, rows = Drawing(8.4, 2.6), memory()
    axes = figure.plot_area(figure.add_subplot())
    places, left = range(len(rows)), np.zeros(len(rows))
    for name, label, colour in (
        ("base", "base congelada", figure.theme.quiet),
        ("trained", "parâmetros treinados", TRAIN),
        ("optimizer", "gradientes e momentos", VALIDATION),
    ):
        sizes = np.array([getattr(row, name) for row in rows.values()])
        bars = axes.barh(places, sizes, 0.62, left=left, color=colour, label=label)
        left += sizes
    totals = [f"{decimal(row.total, 1)} GB" for row in rows.values()]
    axes.bar_label(bars, totals, padding=4, fontsize=9, color=figure.theme.ink)
    axes.set_yticks(places, list(rows))
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 1.15 * left.max())
    axes.set_xlabel("GB, sem contar as ativações")
    axes.legend(frameon=False, loc="lower right", fontsize=9, labelcolor=figure.theme.ink)
    return figure


def quantized_group() -> Drawing:
    """One group of weights beside the 16 values that 4 bits leave them."""
    weights, back = (array[0] for array in _there_and_back(4, GROUP_SIZE))
    figure = Drawing(8.4, 3.0)
    axes, theme = figure.plot_area(figure.add_subplot()), figure.theme
    axes.grid(visible=False)
    for level in sorted(set(np.round(back, 6))):
        axes.axhline(level, color=theme.quiet, alpha=0.35, linewidth=0.8, zorder=0)
    x = np.arange(len(weights))
    axes.vlines(x, weights, back, color=VALIDATION, linewidth=1.2)
    axes.plot(x, weights, "o", color=TRAIN, markersize=4, label="peso de 16 bits")
    axes.plot(x, back, "_", color=VALIDATION, markersize=8, markeredgewidth=1.8, label="o mesmo em 4 bits")
    axes.set_xlabel(f"os {GROUP_SIZE} pesos de um grupo")
    axes.set_ylabel("valor")
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 1.17)}
    axes.legend(frameon=False, ncols=2, fontsize=9, labelcolor=theme.ink, **place)
    return figure


def _there_and_back(bits: int, group_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights like those of a layer (64, 1024), and what is left of them after quantization."""
    import mlx.core as mx

    weights = np.random.default_rng(0).normal(0, 0.02, (64, 1024)).astype(np.float32)
    array = mx.array(weights)
    parts = mx.quantize(array, group_size=group_size, bits=bits)
    back = np.array(mx.dequantize(*parts, group_size=group_size, bits=bits))
    return weights.reshape(-1, group_size), back.reshape(-1, group_size)
