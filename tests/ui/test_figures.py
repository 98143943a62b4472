"""Figures are functions of events: what they show can be read off their axes."""

from io import BytesIO

import pytest
from ui_events import events

from farense_qlora.ui.figures import _smooth, length_histogram, loss_curves


def test_the_curves_show_every_loss_and_mark_the_best() -> None:
    axes = loss_curves(events()).axes[0]
    raw, _smooth, validation, best = [line for line in axes.lines if len(line.get_xdata()) != 2]
    assert raw.get_xdata().tolist() == list(range(1, 61))
    assert validation.get_xdata().tolist() == [0, 20, 40, 60]
    assert best.get_xdata() == [60]
    assert [label.get_text() for label in axes.child_axes[0].get_xticklabels()] == [
        "época 1",
        "época 2",
        "época 3",
    ]
    assert loss_curves(events())._repr_png_().startswith(b"\x89PNG")
    assert "melhor: 0,533" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_smooth_curve_neither_lags_nor_leaves_the_losses() -> None:
    line = [2.0 - step / 100 for step in range(200)]
    assert _smooth(line)[20:-20] == pytest.approx(line[20:-20])
    assert _smooth([1.5] * 50) == pytest.approx([1.5] * 50) and len(_smooth([1.0])) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 5], ids=lambda n: f"{n} events")
def test_the_curves_can_be_drawn_from_the_first_event_on(count: int) -> None:
    loss_curves(events()[:count], total_steps=60).savefig(BytesIO(), format="png")


@pytest.mark.parametrize("lengths", [[7], [10, 500], list(range(20, 90))], ids=str)
def test_the_histogram_counts_every_row(lengths: list[int]) -> None:
    bars = length_histogram(lengths, 512).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == len(lengths) and len(bars) <= 41


def test_the_histogram_shows_the_window_when_it_is_near() -> None:
    near = length_histogram([10, 20, 30], 32).axes[0]
    assert len(near.lines) == 1 and "32" in near.get_title(loc="right")
    far = length_histogram([10, 20, 30], 512).axes[0]
    assert not far.lines and "512" in far.get_title(loc="left")
