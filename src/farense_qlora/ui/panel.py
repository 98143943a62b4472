"""The settings as widgets, made from the config's fields, with what they will cost beside them."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from html import escape
from math import log10
from typing import Any, Literal, get_args, get_origin

import ipywidgets as widgets
from IPython.display import display

from ..answers.trials import PREFIX, newest
from ..config import HOME, VAL_DATA, Config
from ..errors import UserError
from ..files import atomic_write
from ..model.machine import memory_bytes, memory_limit, on_cpu
from ..profiles import PROFILES
from ..table import Table
from ..templates import render
from ..text import decimal, duration, plain, size
from ..training.cost import Estimate, download_gb, estimate, memory_warning
from ..training.doctor import HUB, free_gb, recommended_profile
from ..training.events import Merged, of
from ..training.hosts import Hosts
from ..training.numbers import WHOLE
from ..training.run import all_runs
from .kernel import answer_widgets, tethered
from .live import action_button, warning

OFFERED = ("Por descarregar", "Memória máxima", "Atualizações ao todo", "Tempo de treino")
MAIN = ("rank", "alpha", "learning_rate", "epochs", "batch_size", "max_seq_length")
# Where people move a setting: least, most and step; the bounds of the config are wider, and can be typed.
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
FIELD, SLIDER, WIDE_FIELD = {"width": "290px"}, {"width": "170px"}, {"width": "464px"}


def panel(**changes: Any) -> "Panel":
    """The panel for the profile named in the environment variable FARENSE_PROFILE; without it, with the
    settings of the newest run, so that after a restart one is where one was, or else for the miniature.

    `changes` to its settings stand on top, and on them what other variables say: FARENSE_MAX_STEPS=10.

    >>> fq.panel(rank=8).config.rank
    8
    """
    answer_widgets()
    said = {name: os.environ.get(f"FARENSE_{name.upper()}") for name in Config.model_fields}
    profile = said.pop("profile")
    settings = changes | {name: _value(name, text) for name, text in said.items() if text}
    made = Panel(profile or "mini", **settings)
    if not profile:
        with suppress(UserError, StopIteration):  # there is no run, or its settings cannot be read
            # Those of trials and of merged runs are not what somebody chose to train with.
            chosen = (run for run in all_runs() if not run.name.startswith(PREFIX))
            run = next(run for run in chosen if not of(run.events(), Merged))
            made._show(run.config.changed(**settings))
            made._message.value = (
                f"Definições do último treino, «{escape(run.name)}»; «Repor» volta às do perfil."
            )
    return made


class Panel:
    """Widgets for every setting; `config` is what they say now, validated. A number has a field, which
    decides, and where it makes sense a slider that moves it; beside them stands what training will cost.
    Nothing here computes with MLX: callbacks may run on any thread."""

    def __init__(self, profile: str, **changes: Any):
        config = Config.of(profile, **changes)
        self._changes = changes
        self._limit_gb = memory_limit() / 1e9
        self._on_cpu = on_cpu()
        self._busy = False  # while all widgets are set at once
        self._profile = widgets.Dropdown(
            options=list(PROFILES), value=profile, description="Perfil", style=WIDE, layout=WIDE_FIELD
        )
        self._fields = {
            name: _widget(name, getattr(config, name)) for name in Config.model_fields if name != "profile"
        }
        self._sliders = {name: _slider(name, self._fields[name]) for name in SLIDERS}
        self._message, self._costs = widgets.HTML(), widgets.HTML()
        self._file = widgets.Text(
            value="output/config.json", description="Ficheiro", style=WIDE, layout=WIDE_FIELD
        )
        for widget in (self._profile, *self._fields.values()):
            widget.observe(self._changed, names="value")
        self._show(config)

    @property
    def config(self) -> Config:
        """The settings as they stand; raises `UserError` that names a bad one."""
        values = {name: _value(name, widget.value) for name, widget in self._fields.items()}
        return Config.parse({"profile": self._profile.value, **values})

    def reset(self) -> None:
        """Back to what the profile says, and the changes that the panel was made with."""
        self._show(Config.of(self._profile.value, **self._changes))

    def show_best(self) -> None:
        """The settings that the newest trials recommend; raises `UserError` when there are none."""
        self._show(newest().best)

    def save(self) -> str:
        """Write the settings as JSON and say where; raises `UserError`."""
        config, file = self.config, HOME / self._file.value
        with atomic_write(file) as path:
            config.write(path)
        return f"definições guardadas em {file}"

    def load(self) -> None:
        """Read settings that `save` wrote, or the config.json of a run; raises `UserError`."""
        self._show(Config.read(HOME / self._file.value))

    def _changed(self, change: Any) -> None:
        if self._busy:
            return
        if change["owner"] is self._profile:
            self.reset()
            return
        if change["owner"] is self._fields["train_data"]:
            self._own_validation()
        self._check()

    def _own_validation(self) -> None:
        """The club's validation file goes with the club's rows; that of other rows is made, unless said."""
        train, validation = self._fields["train_data"].value, self._fields["val_data"]
        if validation.value in ("", VAL_DATA):
            validation.value = Config.of(self._profile.value, train_data=train.strip() or "?").val_data

    def _show(self, config: Config) -> None:
        self._busy = True
        if config.profile in PROFILES:
            self._profile.value = config.profile
        for name, widget in self._fields.items():
            value = getattr(config, name)
            widget.value = _text(value) if isinstance(widget, widgets.Text) else value
        self._busy = False
        self._check()

    def _check(self) -> None:
        try:
            config = self.config
            cost, limit = estimate(config, self._on_cpu), self._limit_gb
            facts = _facts(config, cost) | {"Memória desta máquina": f"{decimal(limit, 1)} GB para treinar"}
            too_much = memory_warning(cost, limit)
            self._costs.value = render(
                "ui/costs.html",
                table=Table.of_facts("Com estas definições", facts.items()),
                share=None if cost.peak_gb is None else cost.peak_gb / limit,
                warning=warning(too_much) if too_much else "",
            )
            self._message.value = ""
        except UserError as error:
            self._message.value = warning(re.sub(r"^\w+(?= =|:)", _label, str(error)))

    def _ipython_display_(self) -> None:
        main = [self._profile, *(self._row(name) for name in MAIN)]
        groups = [
            widgets.VBox([self._row(name) for name in names if name in self._fields and name not in MAIN])
            for names in Config.by_group().values()
        ]
        more = widgets.Accordion(groups, titles=tuple(Config.by_group()), selected_index=None)
        left = widgets.VBox([*self._offer(), *main, self._message, more, self._file, self._buttons()])
        wrapped = {"flex_flow": "row wrap", "align_items": "flex-start", "width": "100%"}
        display(tethered(widgets.HBox([left, self._costs], layout=wrapped)))

    def _offer(self) -> list[widgets.Widget]:
        """A button for the profile that suits this computer, and what it takes, unless that is shown."""
        profile = recommended_profile(memory_bytes() / 1e9, self._on_cpu)
        if profile == self._profile.value:
            return []
        config = Config.of(profile, **self._changes)
        use, why = lambda: self._show(config), "O perfil que «doctor» recomenda"
        button = action_button(self._message, f"Usar {profile}", "star", why, use)
        facts = _facts(config, estimate(config, self._on_cpu))
        told = "; ".join(f"{name}: {facts[name]}" for name in OFFERED if name in facts)
        text = f'<div style="line-height:1.35">Recomendado neste computador. {told}.</div>'
        return [button, widgets.HTML(text, layout=WIDE_FIELD)]

    def _row(self, name: str) -> widgets.Widget:
        field = self._fields[name]
        return widgets.HBox([field, self._sliders[name]]) if name in self._sliders else field

    def _buttons(self) -> widgets.Widget:
        button = partial(action_button, self._message)
        return widgets.HBox(
            [
                button("Repor", "undo", "Volta ao que diz o perfil", self.reset),
                button("Usar os ensaios", "star", "O que os últimos ensaios recomendam", self.show_best),
                button("Guardar definições", "save", "Escreve as definições no ficheiro", self.save),
                button("Carregar definições", "folder-open", "Lê as definições do ficheiro", self.load),
            ],
            layout=WIDE_FIELD | {"flex_flow": "row wrap"},
        )


def _facts(config: Config, cost: Estimate) -> dict[str, str]:
    """What `config` leads to, at this `cost` on one computer, as people read it, by its name."""

    def known(value: float | None, form: Callable[[float], str]) -> str:
        return "só depois de descarregar" if value is None else form(value)

    facts, hosts = {}, Hosts.read(HOME / config.hosts).hosts if config.hosts else ()
    if gb := download_gb(config):
        facts["Por descarregar"] = f"{size(gb)} (no disco há {size(free_gb(HUB))} livres)"
    if hosts:
        facts["Computadores"] = ", ".join(host.name for host in hosts)
    count = lambda updates: f"{'' if cost.exact else 'cerca de '}{WHOLE(updates)}"
    time = "mede-se antes do treino, com fq.fit(config)"
    if cost.seconds is not None:
        time = f"cerca de {duration(cost.seconds)}"
    return facts | {
        "Parâmetros a treinar": known(cost.trainable, WHOLE),
        "Linhas de treino": known(cost.rows, WHOLE),
        "Atualizações por época": known(cost.updates_per_epoch, count),
        "Atualizações ao todo": known(cost.updates, count),
        "Tempo de treino, num só" if hosts else "Tempo de treino": time,
        "Memória máxima": known(cost.peak_gb, lambda gb: f"cerca de {decimal(gb, 2)} GB"),
    }


def _slider(name: str, field: widgets.Text) -> widgets.Widget:
    """A slider linked with `field`, as far as it goes. A learning rate goes by its power of ten."""
    low, high, step = SLIDERS[name]
    rate, about = name == "learning_rate", Config.model_fields[name]
    kind = widgets.IntSlider if about.annotation is int else widgets.FloatSlider
    slider = kind(min=low, max=high, step=step, readout=False, layout=SLIDER, tooltip=about.description)

    def position(text: str) -> float | None:
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            return None
        if rate:
            value = log10(value) if value > 0 else low
        return max(low, min(high, value))  # in this order, «nan» is brought within too

    def typed(text: str) -> float:
        at = position(text)
        return slider.value if at is None else at

    def moved(at: float) -> str:
        before = position(field.value)
        if before is not None and abs(at - before) <= step / 2:
            return field.value  # a browser, and no person, moved it: to its stop next to what the field says
        return _text(float(f"{10**at:.2g}") if rate else at)

    widgets.link((field, "value"), (slider, "value"), (typed, moved))
    return slider


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


def _label(name: re.Match[str]) -> str:
    """What the panel calls the setting with which an error begins."""
    field = Config.model_fields.get(name[0])
    return str(field.title) if field else name[0]


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
    kind, text = Config.model_fields[name].annotation, value.strip()
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if get_origin(kind) is Literal:
        return next((one for one in get_args(kind) if str(one) == text), text)
    return None if not text and type(None) in get_args(kind) else text
