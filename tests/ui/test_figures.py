"""Figures are functions of events: what they show can be read off their axes."""

import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from PIL import Image
from ui_events import events

from farense_qlora.config import Config
from farense_qlora.training.events import (
    Evaluated,
    Event,
    Paused,
    RateChanged,
    RolledBack,
    Skipped,
    Spiked,
    Stepped,
)
from farense_qlora.ui import figures
from farense_qlora.ui.figures import (
    THEMES,
    TRAIN,
    VALIDATION,
    Theme,
    ThemeName,
    compare_curves,
    lengths,
    smooth,
    training_curves,
)


def test_the_curves_show_every_loss_and_mark_the_best() -> None:
    axes = training_curves(events()).axes[0]
    raw, _, validation, best = [line for line in axes.lines if len(line.get_xdata()) != 2]
    assert raw.get_xdata().tolist() == list(range(1, 61))
    assert validation.get_xdata().tolist() == [0, 20, 40, 60]
    assert best.get_xdata() == [60]
    assert [label.get_text() for label in axes.child_axes[0].get_xticklabels()] == [
        "época 1",
        "época 2",
        "época 3",
    ]
    data, about = DisplayFormatter().format(training_curves(events()))  # as a cell shows it
    assert data["image/png"].startswith(b"\x89PNG")
    assert about["image/png"]["alt"] == "Perdas de treino e de validação, por atualização"
    assert "melhor: 0,533" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_legend_stands_above_the_plot_and_takes_no_room_beside_it() -> None:
    for figure in (training_curves(events()), compare_curves({"um": events(), "dois": events(40)})):
        figure._repr_png_()
        axes = figure.axes[0]
        assert axes.get_legend().get_window_extent().y0 >= axes.bbox.y1
        assert axes.bbox.width > 0.85 * figure.bbox.width


def test_the_smooth_curve_neither_lags_nor_leaves_the_losses() -> None:
    line = [2.0 - step / 100 for step in range(200)]
    assert smooth(line)[20:-20] == pytest.approx(line[20:-20])
    assert smooth([1.5] * 50) == pytest.approx([1.5] * 50) and len(smooth([1.0])) == 1


def test_what_went_wrong_is_marked_where_it_happened() -> None:
    troubles = [
        Skipped(step=7, time=0.0, epoch=0.3, cause="gradiente", rows=("a:1",)),
        Skipped(step=8, time=0.0, epoch=0.3, cause="gradiente", rows=("a:1",)),
        Spiked(step=9, time=0.0, loss=1.7, bound=1.0),
        RolledBack(step=20, time=0.0, path="x", learning_rate=1e-4),
        Paused(step=30, time=0.0, cause="asked"),
        RateChanged(step=31, time=0.0, learning_rate=1e-4),
    ]
    axes = training_curves([*events(), *troubles]).axes[0]
    lines = {str(line.get_label()): list(line.get_xdata()) for line in axes.lines}
    assert (lines["saltada"], lines["pico"]) == ([7, 8], [9])
    assert (lines["recuo"], lines["pausa"], lines["taxa mudada"]) == ([20, 20], [30, 30], [31, 31])
    assert not {"saltada", "pico", "recuo", "pausa"} & {str(line.get_label()) for line in _lines(events())}


def _lines(written: list[Event]) -> list[Line2D]:
    return training_curves(written).axes[0].lines


def test_the_panels_show_rate_norm_speed_and_memory_of_every_update() -> None:
    some = [replace(e, general_loss=3 + e.step / 60) if isinstance(e, Evaluated) else e for e in events()]
    general = training_curves(some).axes[-1]
    assert general.get_title(loc="left") == "português em geral"
    assert general.lines[0].get_ydata().tolist() == pytest.approx([3, 3 + 1 / 3, 3 + 2 / 3, 4])
    assert general.lines[1].get_ydata() == [3, 3]
    panels = {axes.get_title(loc="left"): axes for axes in training_curves(events()).axes[1:]}
    steps = [event for event in events() if isinstance(event, Stepped)]
    for title, value in (("taxa de aprendizagem", "learning_rate"), ("norma do gradiente", "grad_norm")):
        assert panels[title].lines[0].get_ydata() == pytest.approx([getattr(step, value) for step in steps])
    assert panels["tokens/s"].lines[0].get_ydata() == pytest.approx([600] * 60)
    assert panels["memória máxima (GB)"].lines[0].get_ydata() == pytest.approx([0.25] * 60)


def test_several_runs_lie_over_one_another_in_colours_of_their_own() -> None:
    figure = compare_curves({"um": events(), "dois": events(40)})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    strong = [line for line in figure.axes[0].lines if line.get_label() in ("um", "dois")]
    assert texts[:2] == ["um", "dois"] and len({line.get_color() for line in strong}) == 2
    assert [max(line.get_xdata()) for line in strong] == [60, 40]


@pytest.mark.parametrize(("theme", "corner"), [("light", (255, 255, 255, 255)), ("dark", (17, 17, 17, 255))])
def test_a_theme_has_its_own_ground(theme: ThemeName, corner: tuple[int, ...]) -> None:
    picture = Image.open(BytesIO(training_curves(events(), theme)._repr_png_()))
    assert picture.getpixel((0, 0)) == corner


@pytest.mark.parametrize("theme", THEMES.values())
def test_text_and_lines_of_a_figure_can_be_seen_on_its_ground(theme: Theme) -> None:
    """AA of WCAG 2: 4.5 for text, 3 for what is drawn."""
    assert min(contrast(text, theme.background) for text in (theme.ink, theme.quiet)) >= 4.5
    assert min(contrast(line, theme.background) for line in (TRAIN, VALIDATION)) >= 3


def test_text_of_the_pages_can_be_read() -> None:
    package = Path(figures.__file__).parents[1]
    report = (package / "ui" / "page.html").read_text(encoding="utf-8")
    for part in re.findall(r":root \{(--ink[^}]*)\}", report):  # light, dark, on paper
        has = dict(re.findall(r"--(\w+): (#\w+)", part))
        for text in ("ink", "quiet", "right"):
            assert min(contrast(has[text], has[ground]) for ground in ("paper", "soft")) >= 4.5, (text, has)
    chat = (package / "serving" / "chat.html").read_text(encoding="utf-8")
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", chat)
    for has in ({name: light for name, light, _ in pairs}, {name: dark for name, _, dark in pairs}):
        for text in ("text", "quiet", "bad"):
            assert min(contrast(has[text], has[ground]) for ground in ("ground", "raised")) >= 4.5, text
        assert contrast(has["on-mine"], has["mine"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2)."""

    def luminance(color: str) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_figure_can_be_kept_as_a_file(tmp_path: Path, suffix: str) -> None:
    training_curves(events(), theme="light").savefig(tmp_path / f"curvas.{suffix}")
    start = (tmp_path / f"curvas.{suffix}").read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in start


@pytest.mark.parametrize("count", [0, 1, 2, 5], ids=lambda n: f"{n} events")
def test_the_curves_can_be_drawn_from_the_first_event_on(count: int) -> None:
    assert training_curves(events()[:count])._repr_png_().startswith(b"\x89PNG")


def data(sizes: list[int], window: int) -> Any:
    """What of `Data` the histogram looks at."""
    return SimpleNamespace(
        training=SimpleNamespace(lengths=np.array(sizes)), config=Config(max_seq_length=window)
    )


@pytest.mark.parametrize("sizes", [[7], [10, 500], list(range(20, 90))], ids=str)
def test_the_histogram_counts_every_row(sizes: list[int]) -> None:
    bars = lengths(data(sizes, 512)).axes[0].patches
    assert sum(bar.get_height() for bar in bars) == len(sizes) and len(bars) <= 41


def test_the_histogram_shows_the_window_when_it_is_near() -> None:
    near = lengths(data([10, 20, 30], 32)).axes[0]
    assert len(near.lines) == 1 and "32" in near.get_title(loc="right")
    far = lengths(data([10, 20, 30], 512)).axes[0]
    assert not far.lines and "512" in far.get_title(loc="left")
