"""Figures that explain QLoRA, and the arithmetic behind them: what a model takes, what 4 bits lose."""

from dataclasses import dataclass

import numpy as np

from farense_qlora.config import Config
from farense_qlora.model.base import GROUP_SIZE
from farense_qlora.text import decimal
from farense_qlora.training.cost import MISTRAL_7B, Shape
from farense_qlora.ui.figures import TRAIN, VALIDATION, Drawing

RANKS = (4, 8, 16, 32, 64)
BITS = (2, 3, 4, 6, 8)


@dataclass(frozen=True, kw_only=True)
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


def all_parameters(shape: Shape = MISTRAL_7B) -> int:
    """With those that are not quantized: two norms a block, and one at the end."""
    return shape.parameters + _norms(shape)


def bits_per_weight(bits: int = 4) -> float:
    """What a weight takes in MLX's affine quantization: its bits, its share of a 16-bit scale and bias."""
    return bits + 32 / GROUP_SIZE


def memory(shape: Shape = MISTRAL_7B, rank: int = 16) -> dict[str, Memory]:
    """What each method keeps in memory for a model of `shape`.

    Base weights take 2 bytes, or 4 bits and their scales; what is trained takes 4 bytes, its gradients 4 and
    its two moments 8.
    """
    adapter, everything = shape.trainable(Config(rank=rank)), all_parameters(shape)
    four_bits = shape.parameters * bits_per_weight() / 8 + 2 * _norms(shape)
    methods = {"afinação completa": (0, everything), "LoRA": (2 * everything, adapter)}
    methods["QLoRA"] = (four_bits, adapter)
    return {
        name: Memory(base=base / 1e9, trained=4 * trained / 1e9, optimizer=12 * trained / 1e9)
        for name, (base, trained) in methods.items()
    }


def _norms(shape: Shape) -> int:
    return (2 * shape.layers + 1) * shape.hidden


def rounding_error(bits: int) -> float:
    """How far normally distributed weights lie from their quantized form: root mean square, as a share of
    their standard deviation."""
    weights, back = _there_and_back(bits)
    return float(np.sqrt(np.mean((weights - back) ** 2)) / weights.std())


def memory_bars() -> Drawing:
    """The memory of each method for Mistral-7B, as bars."""
    figure, rows = Drawing("Memória de cada parte do treino", 8.4, 2.6), memory()
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
    weights, back = (array[0] for array in _there_and_back(4))
    figure = Drawing("Um grupo de pesos antes e depois de quantizado", 8.4, 3.0)
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


def _there_and_back(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights like those of a layer, in groups (1024, 64), and what is left of them after quantization."""
    import mlx.core as mx

    weights = np.random.default_rng(0).normal(0, 0.02, (64, 1024)).astype(np.float32)
    parts = mx.quantize(mx.array(weights), group_size=GROUP_SIZE, bits=bits)
    back = np.array(mx.dequantize(*parts, group_size=GROUP_SIZE, bits=bits))
    return weights.reshape(-1, GROUP_SIZE), back.reshape(-1, GROUP_SIZE)
