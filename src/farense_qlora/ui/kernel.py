"""Widgets and their kernel: a browser hears what became of their messages while a cell awaits, and they say
so when their kernel is gone."""

from functools import wraps
from inspect import signature
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython

# JupyterLab marks every widget that lost its kernel with a broken link, and says nothing.
GONE = """<style>
.fq-controls .jupyter-widgets-disconnected::before { display: none; }
.fq-controls.jupyter-widgets-disconnected { flex-wrap: wrap; }
.fq-controls.jupyter-widgets-disconnected::before { width: 100%; font: inherit; color: inherit;
  content: "⚠ Estes controlos já não estão ligados ao núcleo: corra a célula outra vez"; }
.fq-live.jupyter-widgets-disconnected::before { content: "⚠ Estes controlos já não estão ligados ao núcleo;\
 o treino continua: fq.watch() volta a mostrá-lo"; }
</style>"""


def answer_widgets() -> None:
    """Make the kernel say, from now on, when it has dealt with a widget's message: ipykernel 7.4 says nothing
    of those that it handles while a cell awaits, and a browser that hears nothing keeps back every later
    change of that widget, also when the cell has ended."""
    kernel: Any = getattr(get_ipython(), "kernel", None)
    dispatch: Any = getattr(kernel, "dispatch_shell", None)
    if not dispatch or hasattr(dispatch, "__wrapped__"):
        return
    if "concurrent" not in signature(dispatch).parameters:
        return

    @wraps(dispatch)
    async def answered(*arguments: Any, concurrent: bool = False, **named: Any) -> None:
        await dispatch(*arguments, concurrent=concurrent, **named)
        if concurrent:
            kernel._publish_status("idle", "shell")

    kernel.dispatch_shell = answered


def tethered(box: widgets.Box, *kinds: str) -> widgets.Box:
    """`box`, the outermost of an output, made to say as `GONE` does of `kinds` when its kernel is gone."""
    for kind in ("fq-controls", *kinds):
        box.add_class(kind)
    box.children = (widgets.HTML(GONE, layout={"display": "none"}), *box.children)
    return box
