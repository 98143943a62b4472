"""The settings as widgets, made from the config's fields: bounds, help and errors stand there."""

import os
from html import escape
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets
from IPython.display import display

from ..config import GROUPS, PROFILES, Config
from ..errors import UserError
from ..model.doctor import RECOMMENDED

MAIN = ("rank", "alpha", "learning_rate", "epochs", "batch_size", "max_seq_length")
WIDE, LAYOUT = {"description_width": "190px"}, {"width": "420px"}


def panel() -> "Panel":
    """The panel for the profile named in the environment variable FARENSE_PROFILE; otherwise for the one that
    `doctor` recommends for this machine, or for the miniature."""
    if profile := os.environ.get("FARENSE_PROFILE"):
        return Panel(profile)
    return Panel(Config.read(RECOMMENDED).profile if RECOMMENDED.exists() else "mini")


class Panel:
    """Widgets for every setting; `config` is what they say now, validated."""

    def __init__(self, profile: str):
        config = Config.of(profile)
        self._profile = widgets.Dropdown(
            options=list(PROFILES), value=profile, description="Perfil", style=WIDE, layout=LAYOUT
        )
        self._fields = {
            name: _widget(name, getattr(config, name)) for name in Config.model_fields if name != "profile"
        }
        self._message = widgets.HTML()
        self._profile.observe(lambda _: self._reset(), names="value")
        for widget in self._fields.values():
            widget.observe(lambda _: self._check(), names="value")
        self._check()

    @property
    def config(self) -> Config:
        """The settings as they stand; raises `UserError` that names a bad one."""
        values = {name: _value(name, widget.value) for name, widget in self._fields.items()}
        return Config.parse({"profile": self._profile.value, **values})

    def _check(self) -> None:
        try:
            _ = self.config
            self._message.value = ""
        except UserError as error:
            self._message.value = f'<span style="color:#b3402a">⚠ {escape(str(error))}</span>'

    def _reset(self) -> None:
        config = Config.of(self._profile.value)
        for name, widget in self._fields.items():
            widget.value = _shown(getattr(config, name), widget)

    def _ipython_display_(self) -> None:
        main = widgets.VBox([self._profile, *(self._fields[name] for name in MAIN)])
        groups = [
            widgets.VBox(
                [self._fields[name] for name in self._fields if _in(name, group) and name not in MAIN]
            )
            for group in GROUPS
        ]
        more = widgets.Accordion(groups, titles=tuple(GROUPS.values()), selected_index=None)
        display(widgets.VBox([main, self._message, more]))


def _widget(name: str, value: Any) -> widgets.Widget:
    field = Config.model_fields[name]
    common = {
        "description": field.title,
        "tooltip": field.description,
        "style": WIDE,
        "layout": LAYOUT,
    }
    if get_origin(field.annotation) is Literal:
        return widgets.Dropdown(options=get_args(field.annotation), value=value, **common)
    if isinstance(value, bool):
        return widgets.Checkbox(value=value, indent=False, **common)
    return widgets.Text(value=_text(value), continuous_update=True, **common)


def _shown(value: Any, widget: widgets.Widget) -> Any:
    return _text(value) if isinstance(widget, widgets.Text) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}".replace(".", ",") if isinstance(value, float) else str(value)


def _value(name: str, value: Any) -> Any:
    """What a person typed, as the config takes it: decimal commas, lists by commas, empty for none."""
    if not isinstance(value, str):
        return value
    kinds = get_args(Config.model_fields[name].annotation) or (Config.model_fields[name].annotation,)
    text = value.strip()
    if Config.model_fields[name].annotation == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if not text and type(None) in kinds:
        return None
    return text.replace(",", ".") if float in kinds else text


def _in(name: str, group: str) -> bool:
    extra = Config.model_fields[name].json_schema_extra
    return isinstance(extra, dict) and extra["group"] == group
