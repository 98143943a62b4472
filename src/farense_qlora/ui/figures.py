"""Figures as pure functions of events and lengths: matplotlib objects that draw themselves in a cell.

`figure.savefig("curvas.svg")` (or .png, .pdf) keeps one. A figure has a ground of its own, since a notebook
does not tell its kernel whether it is dark, and no ink can be read well on white and black alike.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..data.load import Data
from ..text import decimal, plain, scientific
from ..training.events import (
    Evaluated,
    Event,
    Paused,
    RateChanged,
    RolledBack,
    Skipped,
    Spiked,
    Started,
    Stepped,
    best_of,
    last,
    of,
)
from ..training.run import Run

# Of the Okabe-Ito palette, told apart by colour-blind people too.
TRAIN, VALIDATION = "#2b8cc4", "#D55E00"
SERIES = (TRAIN, VALIDATION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LOSSES = {"xlabel": "atualização", "ylabel": "perda (nats por token)"}  # of a plot of these
SMOOTHING = 0.05  # share of the updates over which the strong line is averaged
ThemeName = Literal["light", "dark"]


class Theme(NamedTuple):
    """The colours of what is not data."""

    background: str
    ink: str
    quiet: str


THEMES: dict[ThemeName, Theme] = {
    "light": Theme("#ffffff", "#222222", "#6b6b6b"),
    "dark": Theme("#111111", "#e0e0e0", "#9a9a9a"),
}


class Drawing(Figure):
    """A figure that draws itself as the last line of a cell, without pyplot or magics; `alt` says in words
    what it shows, in Portuguese."""

    def __init__(self, alt: str, size: tuple[float, float], theme: ThemeName = "light"):
        self.alt, self.theme = alt, THEMES[theme]
        super().__init__(figsize=size, dpi=110, layout="constrained", facecolor=self.theme.background)

    def plot_area(self, axes: Axes) -> Axes:
        """`axes` as all of ours are: open above and on the right, a light grid, decimal commas."""
        theme = self.theme
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.quiet)
        axes.tick_params(colors=theme.ink, labelsize=9)
        for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
            label.set_color(theme.ink)
        axes.grid(axis="y", color=theme.quiet, alpha=0.25)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
        return axes

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        # Not `savefig`, which draws twice to learn the size of what it draws.
        FigureCanvasAgg(self).print_png(png, pil_kwargs={"compress_level": 1})
        return png.getvalue()

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
        return {"image/png": self._repr_png_()}, {"image/png": {"alt": self.alt}}


def curves(run: Run, theme: ThemeName = "light") -> Drawing:
    """The curves of `run` so far, as `training_curves` draws them.

    >>> fq.curves(run).savefig(folder / "curvas.svg")
    """
    return training_curves(run.events(), theme)


def training_curves(events: Sequence[Event], theme: ThemeName = "light") -> Drawing:
    """Training loss, raw and smoothed, and validation loss, over the updates; the best one, skipped updates,
    roll-backs, spikes, pauses and changes of the learning rate are marked. Below them learning rate, gradient
    norm, tokens a second, peak memory, and the loss on texts about other things: where that one climbs above
    its dotted beginning, the model forgets."""
    steps, started = of(events, Stepped), last(events, Started)
    general = [(e.step, e.general_loss) for e in of(events, Evaluated) if e.general_loss is not None]
    end = max(started.total_steps if started else 0, events[-1].step if events else 0, 1)
    panels: dict[str, Sequence[float]] = {
        "taxa de aprendizagem": [step.learning_rate for step in steps],
        "norma do gradiente": [step.grad_norm for step in steps],
        "tokens/s": smooth([step.tokens for step in steps])
        / np.maximum(smooth([step.seconds for step in steps]), 1e-9),
        "memória máxima (GB)": [step.peak_memory_gb for step in steps],
    }
    figure = Drawing("Perdas de treino e de validação, por atualização", (9.2, 5.2), theme)
    figure.set_layout_engine("none")  # working one out takes half the time
    columns = len(panels) + bool(general)
    margins = {"left": 0.065, "right": 0.97, "top": 0.89, "bottom": 0.06}
    grid = figure.add_gridspec(2, columns, height_ratios=(3, 1), hspace=0.5, wspace=0.42, **margins)
    _draw_losses(figure.plot_area(figure.add_subplot(grid[0, :])), events, end, figure.theme)
    for column, (title, values) in enumerate(panels.items()):
        axes = _small(figure, grid[1, column], title, end)
        axes.plot([step.step for step in steps], values, color=TRAIN, linewidth=1.3)
        axes.set_ylim(0, 1.15 * max(values) if max(values, default=0) > 0 else 1)
    figure.axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: scientific(value)))
    if general:
        axes = _small(figure, grid[1, -1], "português em geral", end)
        axes.plot(*zip(*general, strict=True), color=VALIDATION, linewidth=1.3, marker="o", markersize=3)
        axes.axhline(general[0][1], color=figure.theme.quiet, linestyle=":", linewidth=1.3)
        axes.margins(y=0.25)
    return figure


def _small(figure: Drawing, place: SubplotSpec, title: str, end: int) -> Axes:
    """A plot under the losses, over the same updates up to `end`."""
    axes = figure.plot_area(figure.add_subplot(place))
    axes.set_title(title, fontsize=9, loc="left", color=figure.theme.ink)
    axes.set_xlim(0, end)
    axes.xaxis.set_visible(False)  # the one above
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=8)
    return axes


def compare_curves(runs: Mapping[str, Sequence[Event]]) -> Drawing:
    """The losses of several runs, by name, in one picture: training faint, validation strong."""
    figure = Drawing(f"Perdas dos treinos {', '.join(runs)}", (8.4, 4.2))
    axes = figure.plot_area(figure.add_subplot())
    highest = 1e-3
    for i, (name, events) in enumerate(runs.items()):
        steps, evaluations = of(events, Stepped), of(events, Evaluated)
        color, dashes = SERIES[i % len(SERIES)], "-" if i < len(SERIES) else "--"
        trained = smooth([step.loss for step in steps])
        axes.plot([step.step for step in steps], trained, dashes, color=color, alpha=0.55, linewidth=1.2)
        losses = [event.loss for event in evaluations]
        axes.plot([e.step for e in evaluations], losses, dashes, color=color, lw=2, marker="o", label=name)
        highest = max([highest, *trained, *losses])
    axes.set(xlim=(0, None), ylim=(0, 1.06 * highest), **LOSSES)
    kinds = [
        Line2D([], [], color=figure.theme.ink, linewidth=2, marker="o", label="validação"),
        Line2D([], [], color=figure.theme.ink, linewidth=1.2, alpha=0.55, label="treino, alisada"),
    ]
    _legend(axes, figure.theme, [*axes.get_legend_handles_labels()[0], *kinds], 2)
    return figure


def lengths(data: Data) -> Drawing:
    """How long the training rows are, in tokens, and where `max_seq_length` cuts them.

    >>> fq.lengths(data).savefig(folder / "comprimentos.png")
    """
    sizes, window = data.training.lengths, data.config.max_seq_length
    figure = Drawing("Quantas linhas têm cada comprimento, em tokens", (8.4, 2.9))
    axes = figure.plot_area(figure.add_subplot())
    shortest, longest = int(sizes.min()), int(sizes.max())
    width = 1 + (longest - shortest) // 40  # whole tokens, so that no bar covers more lengths than another
    axes.hist(sizes, bins=list(range(shortest, longest + width + 1, width)), color=TRAIN, alpha=0.85)
    if window <= 2 * longest:
        axes.axvline(window, color=VALIDATION, linewidth=1.8)
        axes.set_title(f"comprimento máximo: {window}", fontsize=10, color=figure.theme.ink, loc="right")
    else:
        room = f"a linha mais longa tem {longest} tokens; cabem {window}"
        axes.set_title(room, fontsize=10, color=figure.theme.quiet, loc="left")
    axes.set(xlabel="tokens por linha", ylabel="linhas")
    return figure


def _draw_losses(axes: Axes, events: Sequence[Event], end: int, theme: Theme) -> None:
    steps, evaluations = of(events, Stepped), of(events, Evaluated)
    highest = max([1e-3, *(step.loss for step in steps), *(event.loss for event in evaluations)])
    if steps:
        x, raw = [step.step for step in steps], [step.loss for step in steps]
        axes.plot(x, raw, color=TRAIN, alpha=0.35, linewidth=0.9)
        axes.plot(x, smooth(raw), color=TRAIN, linewidth=2.0, label="treino")
        _mark_epochs(axes, steps, theme)
    if evaluations:
        x, raw = [event.step for event in evaluations], [event.loss for event in evaluations]
        axes.plot(x, raw, color=VALIDATION, linewidth=1.8, marker="o", markersize=4.5, label="validação")
        best = best_of(evaluations) or evaluations[-1]
        label = f"melhor: {decimal(best.loss)}"
        axes.plot(best.step, best.loss, "*", color=VALIDATION, markersize=14, label=label, clip_on=False)
    _mark_troubles(axes, events, 1.03 * highest)
    axes.set(xlim=(0, end), ylim=(0, 1.06 * highest if steps or evaluations else 1), **LOSSES)
    if handles := axes.get_legend_handles_labels()[0]:
        _legend(axes, theme, handles, 8)


def _mark_troubles(axes: Axes, events: Sequence[Event], top: float) -> None:
    """Skipped updates on the upper edge, spikes where they are, the rest as lines from top to bottom."""
    skipped = [event.step for event in of(events, Skipped)]
    if skipped:
        axes.plot(skipped, [top] * len(skipped), "x", color="#CC79A7", markersize=7, label="saltada")
    spikes = [(event.step, event.loss) for event in of(events, Spiked)]
    if spikes:
        axes.plot(*zip(*spikes, strict=True), "^", color="#E69F00", markersize=7, label="pico")
    for kind, label, color, style in (
        (RolledBack, "recuo", "#CC79A7", "--"),
        (Paused, "pausa", "#009E73", ":"),
        (RateChanged, "taxa mudada", "#E69F00", "-."),
    ):
        for i, at in enumerate(event.step for event in of(events, kind)):
            name = label if i == 0 else "_"
            axes.axvline(at, color=color, linestyle=style, linewidth=1.3, label=name)


def _legend(axes: Axes, theme: Theme, handles: Sequence[Artist], columns: int) -> None:
    """Names above the plot, where they lie over no curve and no mark, in `columns` that fit its width."""
    axes.legend(
        handles=handles,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1.09),
        borderaxespad=0,
        borderpad=0,
        labelcolor=theme.ink,
        fontsize=9,
        ncols=columns,
        columnspacing=1.4,
        handlelength=1.6,
    )


def smooth(values: Sequence[float]) -> np.ndarray:
    """A mean over `SMOOTHING` of the values, centred: a trailing one would lag, above a loss that falls."""
    window = 1 + 2 * max(1, round(SMOOTHING * len(values) / 2))
    smoothed = pd.Series(values, dtype=float)
    for _ in range(2):  # so that what is near counts for more
        smoothed = smoothed.rolling(window, min_periods=1, center=True).mean()
    return smoothed.to_numpy()


def _mark_epochs(axes: Axes, steps: Sequence[Stepped], theme: Theme) -> None:
    """A faint line where each epoch ends, named on top."""
    ends = [after for before, after in pairwise(steps) if int(after.epoch + 1e-9) > int(before.epoch + 1e-9)]
    for end in ends:
        axes.axvline(end.step, color=theme.quiet, alpha=0.3, linewidth=0.8)
    top = axes.secondary_xaxis("top")
    every = 1 + len(ends) // 10
    shown = ends[every - 1 :: every]
    top.set_xticks([end.step for end in shown], [f"época {round(end.epoch)}" for end in shown])
    top.tick_params(length=0, labelsize=8, labelcolor=theme.quiet)
    top.spines["top"].set_visible(False)
