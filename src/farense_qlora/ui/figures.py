"""Figures as pure functions of events and lengths: matplotlib objects that draw themselves in a cell."""

from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..results.bench import Measurement
from ..results.text import decimal
from ..training.events import Evaluated, Event, Stepped

# Two colours of the Okabe-Ito palette, told apart by colour-blind people too.
TRAIN, VALIDATION, QUIET = "#0072B2", "#D55E00", "#6b6b6b"
BARS = (TRAIN, VALIDATION, "#E69F00")
SMOOTHING = 0.05  # share of the updates over which the strong line is averaged


class Drawing(Figure):
    """A figure that draws itself as the last line of a cell, without pyplot or magics."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def loss_curves(events: Sequence[Event], total_steps: int | None = None) -> Drawing:
    """Training loss, raw and smoothed, and validation loss, over the updates; the best one is marked."""
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    figure = Drawing(figsize=(8.4, 3.9), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    if steps:
        x, raw = [step.step for step in steps], [step.loss for step in steps]
        axes.plot(x, raw, color=TRAIN, alpha=0.22, linewidth=0.9)
        axes.plot(x, _smooth(raw), color=TRAIN, linewidth=2.0, label="treino")
        _mark_epochs(axes, steps)
    if evaluations:
        x, raw = [event.step for event in evaluations], [event.loss for event in evaluations]
        axes.plot(x, raw, color=VALIDATION, linewidth=1.8, marker="o", markersize=4.5, label="validação")
        best = min(evaluations, key=lambda event: event.loss)
        label = f"melhor: {best.loss:.3f}".replace(".", ",")
        axes.plot(best.step, best.loss, "*", color=VALIDATION, markersize=14, label=label, clip_on=False)
    highest = max([1e-3, *(step.loss for step in steps), *(event.loss for event in evaluations)])
    axes.set_ylim(0, 1.06 * highest if steps or evaluations else 1)
    axes.set_xlim(0, max(total_steps or 0, steps[-1].step if steps else 0, 1))
    axes.set_xlabel("atualização")
    axes.set_ylabel("perda (nats por token)")
    _tidy(axes)
    if steps or evaluations:
        axes.legend(frameon=False, loc="upper right")
    return figure


def length_histogram(lengths: Sequence[int], window: int) -> Drawing:
    """How long the rows are, in tokens, and where the window would cut them."""
    figure = Drawing(figsize=(8.4, 2.9), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    shortest, longest = int(min(lengths)), int(max(lengths))
    width = 1 + (longest - shortest) // 40  # whole tokens, so that no bar covers more lengths than another
    axes.hist(lengths, bins=list(range(shortest, longest + width + 1, width)), color=TRAIN, alpha=0.85)
    if window <= 2 * longest:
        axes.axvline(window, color=VALIDATION, linewidth=1.8)
        axes.set_title(f"comprimento máximo: {window}", fontsize=10, color=VALIDATION, loc="right")
    else:
        axes.set_title(
            f"a linha mais longa tem {longest} tokens; cabem {window}", fontsize=10, color=QUIET, loc="left"
        )
    axes.set_xlabel("tokens por linha")
    axes.set_ylabel("linhas")
    _tidy(axes)
    return figure


def bench_bars(results: Sequence[Measurement]) -> Drawing:
    """Supervised tokens a second (a logarithmic axis) and peak memory beyond the weights, by workload."""
    workloads = list(dict.fromkeys(result.workload for result in results))
    trainers = list(dict.fromkeys(result.trainer for result in results))
    figure = Drawing(figsize=(8.4, 1.2 + 0.75 * len(workloads)), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    thick = 0.8 / len(trainers)
    for axes, value, digits, title in (
        (panels[0], "supervised_tokens_per_s", 0, "tokens supervisionados por segundo"),
        (panels[1], "peak_beyond_weights_gb", 2, "pico de memória além dos pesos (GB)"),
    ):
        for i, trainer in enumerate(trainers):
            mine = [result for result in results if result.trainer == trainer]
            at = [workloads.index(result.workload) + (i - (len(trainers) - 1) / 2) * thick for result in mine]
            bars = axes.barh(
                at, [getattr(r, value) for r in mine], thick * 0.9, color=BARS[i % len(BARS)], label=trainer
            )
            labels = [decimal(getattr(r, value), digits) for r in mine]
            axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_xscale("log")
    panels[0].set_yticks(range(len(workloads)), workloads)
    panels[0].invert_yaxis()
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    return figure


def _smooth(values: Sequence[float]) -> np.ndarray:
    """A mean over `SMOOTHING` of the values, centred: a trailing one would lag, above a loss that falls."""
    reach = max(1, round(SMOOTHING * len(values)))
    near = 1.0 + reach - np.abs(np.arange(-reach, reach + 1))
    sums = np.convolve(np.asarray(values, float), near)[reach : reach + len(values)]
    return sums / np.convolve(np.ones(len(values)), near)[reach : reach + len(values)]


def _mark_epochs(axes: Axes, steps: Sequence[Stepped]) -> None:
    """A faint line where each epoch ends, named on top."""
    ends = [after for before, after in pairwise(steps) if int(after.epoch + 1e-9) > int(before.epoch + 1e-9)]
    for end in ends:
        axes.axvline(end.step, color=QUIET, alpha=0.25, linewidth=0.8)
    top = axes.secondary_xaxis("top")
    every = 1 + len(ends) // 10
    shown = ends[every - 1 :: every]
    top.set_xticks([end.step for end in shown], [f"época {round(end.epoch)}" for end in shown])
    top.tick_params(length=0, labelsize=8, labelcolor=QUIET)
    top.spines["top"].set_visible(False)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace(".", ",")))
