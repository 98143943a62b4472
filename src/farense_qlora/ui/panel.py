"""The settings as widgets, made from the config's fields, with what they will cost beside them."""

import os
from collections.abc import Callable
from contextlib import suppress
from html import escape
from math import log10
from threading import RLock
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets
from IPython.display import display

from ..config import HOME, VAL_DATA, Config
from ..errors import UserError
from ..model.machine import memory_bytes, memory_limit, on_cpu
from ..profiles import PROFILES
from ..text import decimal, duration, plain, size
from ..training.cost import Estimate, download_gb, estimate, memory_warning
from ..training.doctor import HUB, free_gb, recommended_profile
from ..training.run import all_runs
from .kernel import answer_widgets
from .live import action_button

MAIN = ("rank", "alpha", "learning_rate", "epochs", "batch_size", "max_seq_length")
# Where people move a setting: least, most and step; the bounds of the config are wider, and can be typed.
# The learning rate goes by its power of ten.
SLIDERS: dict[str, tuple[float, float, float]] = {
    "rank": (1, 128, 1),
    "alpha": (1, 256, 1),
    "dropout": (0, 0.5, 0.01),
    "epochs": (0.5, 20, 0.5),
    "batch_size": (1, 64, 1),
    "grad_accumulation_steps": (1, 32, 1),
    "lora_plus_ratio": (1, 32, 1),
    "warmup_ratio": (0, 0.5, 0.01),
    "max_seq_length": (32, 4096, 32),
    "eval_every": (10, 1000, 10),
    "save_every": (10, 1000, 10),
    "learning_rate": (-6, -2, 0.05),
}
# Narrow enough that the costs stand beside them in a window 1280 pixels wide.
WIDE = {"description_width": "180px"}
# The arrow of a list is a black picture; in a dark JupyterLab the browser's own is seen.
ARROW = """<style>body[data-jp-theme-light="false"] .widget-dropdown > select
{appearance: auto; background-image: none; color-scheme: dark}</style>"""
FIELD, SLIDER, WIDE_FIELD = {"width": "290px"}, {"width": "170px"}, {"width": "464px"}


def panel(**changes: Any) -> "Panel":
    """The panel for the profile named in the environment variable FARENSE_PROFILE; without it, with the
    settings of the newest run, so that after a restart one is where one was, or else for the miniature.

    `changes` to its settings stand on top, and on them what other variables say: FARENSE_MAX_STEPS=10.

    >>> fq.panel(rank=8).config.rank
    8
    """
    answer_widgets()
    names = {name: f"FARENSE_{name.upper()}" for name in Config.model_fields}
    given = {name: _value(name, os.environ[key]) for name, key in names.items() if os.environ.get(key)}
    made = Panel(given.pop("profile", "mini"), **{**changes, **given})
    if not os.environ.get("FARENSE_PROFILE"):
        made.show_last({**changes, **given})
    return made


class Panel:
    """Widgets for every setting; `config` is what they say now, validated.

    A number has a field, which decides, and where it makes sense a slider that moves it. Beside them stands
    what training will cost. Nothing here computes with MLX: callbacks may run on any thread.
    """

    def __init__(self, profile: str, **changes: Any):
        config = Config.of(profile, **changes)
        self._changes = changes
        self._limit_gb = memory_limit() / 1e9
        self._on_cpu = on_cpu()
        self._busy = False  # while several widgets are set at once
        self._one_at_a_time = RLock()  # kernels with subshells hand over what happened on several threads
        self._profile = widgets.Dropdown(
            options=list(PROFILES), value=profile, description="Perfil", style=WIDE, layout=WIDE_FIELD
        )
        self._fields = {
            name: _widget(name, getattr(config, name)) for name in Config.model_fields if name != "profile"
        }
        self._sliders = {name: _slider(name) for name in SLIDERS}
        self._message, self._costs = widgets.HTML(), widgets.HTML()
        self._profile.observe(
            lambda _: self._show(Config.of(self._profile.value, **self._changes)), names="value"
        )
        for name, widget in self._fields.items():
            widget.observe(self._typed(name), names="value")
        for name, slider in self._sliders.items():
            slider.observe(self._slid(name), names="value")
        self._file = widgets.Text(
            value="output/config.json", description="Ficheiro", style=WIDE, layout=WIDE_FIELD
        )
        self._show(config)

    @property
    def config(self) -> Config:
        """The settings as they stand; raises `UserError` that names a bad one."""
        values = {name: _value(name, widget.value) for name, widget in self._fields.items()}
        return Config.parse({"profile": self._profile.value, **values})

    def reset(self) -> None:
        """Back to what the profile says, and the changes that the panel was made with."""
        self._show(Config.of(self._profile.value, **self._changes))

    def show_last(self, changes: dict[str, Any]) -> None:
        """The settings of the newest run with `changes`, if there is a run and its settings can be read."""
        with suppress(UserError, IndexError):
            run = all_runs()[0]
            self._show(run.config.changed(**changes))
            self._message.value = (
                f"Definições do último treino, «{escape(run.name)}»; «Repor» volta às do perfil."
            )

    def save(self) -> None:
        """Write the settings as JSON; raises `UserError`."""
        self.config.write(HOME / self._file.value)

    def load(self) -> None:
        """Read settings that `save` wrote, or the config.json of a run; raises `UserError`."""
        self._show(Config.read(HOME / self._file.value))

    def _typed(self, name: str) -> Callable[[object], None]:
        def typed(_: object) -> None:
            with self._one_at_a_time:
                if not self._busy:
                    self._follow(name)
                    if name == "train_data":
                        self._own_validation()
                    self._check()

        return typed

    def _own_validation(self) -> None:
        """The club's validation file goes with the club's rows; that of other rows is made, unless said."""
        train, validation = self._fields["train_data"], self._fields["val_data"]
        usual = Config.of(self._profile.value, train_data=_value("train_data", train.value) or "?").val_data
        if validation.value in ("", VAL_DATA) and validation.value != usual:
            validation.value = usual

    def _slid(self, name: str) -> Callable[[Any], None]:
        def slid(change: Any) -> None:
            with self._one_at_a_time:
                if not self._busy and not self._snapped(name, change["new"]):
                    self._fields[name].value = _text(_at(name, change["new"]))

        return slid

    def _follow(self, name: str) -> None:
        """Bring the slider of `name`, if it has one, to what the field says, as far as it goes."""
        if name in SLIDERS and (position := self._position(name)) is not None:
            before, self._busy = self._busy, True
            slider = self._sliders[name]
            slider.value = int(position) if isinstance(slider, widgets.IntSlider) else position
            self._busy = before

    def _snapped(self, name: str, position: float) -> bool:
        """Whether a browser, and no person, moved the slider: to its stop next to what the field says."""
        said = self._position(name)
        return said is not None and abs(position - said) <= self._sliders[name].step / 2

    def _position(self, name: str) -> float | None:
        """Where on its slider, or at which end, stands what the field of `name` says; None for no number."""
        low, high, _ = SLIDERS[name]
        try:
            value = float(str(_value(name, self._fields[name].value)).replace(",", "."))
        except (TypeError, ValueError):
            return None
        if name == "learning_rate":
            value = log10(value) if value > 0 else low
        return max(low, min(high, value))  # in this order, «nan» is brought within too

    def _show(self, config: Config) -> None:
        with self._one_at_a_time:
            self._busy = True
            self._profile.value = config.profile if config.profile in PROFILES else self._profile.value
            for name, widget in self._fields.items():
                value = getattr(config, name)
                widget.value = _text(value) if isinstance(widget, widgets.Text) else value
                self._follow(name)
            self._busy = False
            self._check()

    def _check(self) -> None:
        try:
            config = self.config
            self._costs.value = _costs(estimate(config, self._on_cpu), self._limit_gb)
            self._message.value = ""
        except UserError as error:
            self._message.value = _warning(str(error))

    def _ipython_display_(self) -> None:
        main = [self._profile, *(self._row(name) for name in MAIN)]
        groups = [
            widgets.VBox([self._row(name) for name in names if name in self._fields and name not in MAIN])
            for names in Config.by_group().values()
        ]
        more = widgets.Accordion(groups, titles=tuple(Config.by_group()), selected_index=None)
        left = widgets.VBox([*self._offer(), *main, self._message, more, self._file, self._buttons()])
        wrapped = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
        display(widgets.HBox([left, self._costs], layout=wrapped))

    def _offer(self) -> list[widgets.Widget]:
        """A button for the profile that suits this computer, and what it takes, unless that is shown."""
        profile = recommended_profile(memory_bytes() / 1e9, self._on_cpu)
        if profile == self._profile.value:
            return []
        config = Config.of(profile, **self._changes)
        button = action_button(f"Usar {profile}", "star", "O perfil que «doctor» recomenda")
        button.on_click(lambda _: self._show(config))
        cost, download = estimate(config, self._on_cpu), download_gb(config)
        text = (
            f"Recomendado neste computador. Por descarregar: {size(download)} (no disco há "
            f"{size(free_gb(HUB))} livres); memória: {_about(cost.peak_gb, 1)} GB; tempo: {_time(cost)}, em "
            f"{_about(cost.updates)} atualizações."
        )
        return [button, widgets.HTML(f'<div style="line-height:1.35">{text}</div>', layout=WIDE_FIELD)]

    def _row(self, name: str) -> widgets.Widget:
        field = self._fields[name]
        return widgets.HBox([field, self._sliders[name]]) if name in self._sliders else field

    def _buttons(self) -> widgets.Widget:
        actions = {
            "Repor": ("undo", "Volta ao que diz o perfil", self.reset),
            "Guardar definições": ("save", "Escreve as definições no ficheiro", self.save),
            "Carregar definições": ("folder-open", "Lê as definições do ficheiro", self.load),
        }
        made = []
        for label, (icon, tooltip, action) in actions.items():
            button = action_button(label, icon, tooltip)
            button.on_click(self._saying(action))
            made.append(button)
        return widgets.HBox(made)

    def _saying(self, action: Callable[[], None]) -> Callable[[object], None]:
        def act(_: object) -> None:
            try:
                action()
            except UserError as error:
                self._message.value = _warning(str(error))

        return act


def _costs(cost: Estimate, limit_gb: float) -> str:
    """What the settings lead to, as HTML."""
    unknown = "só depois de descarregar o modelo"
    rows = {
        "Parâmetros a treinar": unknown if cost.trainable is None else decimal(cost.trainable, 0),
        "Linhas de treino": "só depois de descarregar" if cost.rows is None else decimal(cost.rows, 0),
        "Atualizações por época": _about(cost.updates_per_epoch),
        "Atualizações ao todo": _about(cost.updates),
        "Tempo de treino": _time(cost),
        "Memória máxima": unknown if cost.peak_gb is None else f"cerca de {decimal(cost.peak_gb, 2)} GB",
        "Memória desta máquina": f"{decimal(limit_gb, 1)} GB para treinar",
    }
    cells = "".join(
        f'<tr><td style="text-align:left;padding:3px 18px 3px 0;opacity:.75">{name}</td>'
        f'<td style="text-align:left;padding:3px 0;font-variant-numeric:tabular-nums">{value}</td></tr>'
        for name, value in rows.items()
    )
    bar, too_much = "", memory_warning(cost, limit_gb)
    warning = _warning(too_much) if too_much else ""
    if cost.peak_gb is not None:
        share = cost.peak_gb / limit_gb
        colour = "#0072B2" if share <= 0.8 else "#E69F00" if share <= 1 else "#D55E00"
        bar = (
            '<div style="height:8px;border-radius:4px;background:rgba(128,128,128,.25);margin:6px 0">'
            f'<div style="height:8px;border-radius:4px;background:{colour};'
            f'width:{min(100.0, 100 * share):.1f}%"></div></div>'
        )
    return (
        f'{ARROW}<div style="margin:4px 0 0 24px;width:330px;line-height:1.35">'
        f"<b>Com estas definições</b><table>{cells}</table>{bar}{warning}</div>"
    )


def _time(cost: Estimate) -> str:
    return "por medir: «fit»" if cost.seconds is None else f"cerca de {duration(cost.seconds)}"


def _about(count: float | None, digits: int = 0) -> str:
    return "—" if count is None else f"cerca de {decimal(count, digits)}"


def _warning(text: str) -> str:
    return f'<span style="color:#D55E00;line-height:1.35">⚠ {escape(text)}</span>'


def _at(name: str, position: float) -> float:
    """What the slider of `name` stands for at `position`; a learning rate has two digits."""
    return float(f"{10**position:.2g}") if name == "learning_rate" else position


def _slider(name: str) -> widgets.Widget:
    common = {"readout": False, "layout": SLIDER, "tooltip": Config.model_fields[name].description}
    low, high, step = SLIDERS[name]
    whole = int in (get_args(Config.model_fields[name].annotation) or (Config.model_fields[name].annotation,))
    kind = widgets.IntSlider if whole else widgets.FloatSlider
    return kind(min=low, max=high, step=step, value=low, **common)


def _widget(name: str, value: Any) -> widgets.Widget:
    field = Config.model_fields[name]
    common = {
        "description": field.title,
        "tooltip": field.description,
        "style": WIDE,
        "layout": FIELD if name in SLIDERS else WIDE_FIELD,
    }
    if get_origin(field.annotation) is Literal:
        return widgets.Dropdown(options=get_args(field.annotation), value=value, **common)
    if isinstance(value, bool):
        return widgets.Checkbox(value=value, **common)
    return widgets.Text(value=_text(value), continuous_update=True, **common)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    return plain(value) if isinstance(value, float) else str(value)


def _value(name: str, value: Any) -> Any:
    """What a person typed, as the config takes it: lists by commas, empty for none."""
    if not isinstance(value, str):
        return value
    kinds = get_args(Config.model_fields[name].annotation) or (Config.model_fields[name].annotation,)
    text = value.strip()
    if get_origin(Config.model_fields[name].annotation) is Literal:
        return next((kind for kind in kinds if str(kind) == text), text)
    if Config.model_fields[name].annotation == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if not text and type(None) in kinds:
        return None
    return text
