"""The measurements of a bench as bars."""

from collections.abc import Sequence

from workloads import Measurement

from farense_qlora.text import decimal
from farense_qlora.ui.figures import SERIES, Drawing


def bench_bars(results: Sequence[Measurement]) -> Drawing:
    """Supervised tokens a second (a logarithmic axis) and peak memory beyond the weights, by workload."""
    workloads = list(dict.fromkeys(result.workload for result in results))
    trainers = list(dict.fromkeys(result.trainer for result in results))
    figure = Drawing("Velocidade e memória, por trabalho", (8.4, 1.2 + 0.75 * len(workloads)))
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
                at,
                [getattr(r, value) for r in mine],
                thick * 0.9,
                color=SERIES[i % len(SERIES)],
                label=trainer,
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
