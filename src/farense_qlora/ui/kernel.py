"""Widgets and their kernel: an awaiting cell hears them in every ipykernel that this project may meet,
and they say so when their kernel is gone."""

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
    """Make the kernel say, from now on, when it has dealt with a widget's message.

    ipykernel 7.4 says nothing of those that it handles while a cell awaits. A browser that hears nothing
    keeps back every later change of that widget, also when the cell has ended.
    """
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


async def hear_widgets() -> None:
    """Handle the widgets' messages that arrived while this cell runs.

    ipykernel 7 does so by itself (in a thread of its own or between two awaits); ipykernel 6 leaves them in
    line behind the cell, from where they are taken here. What else waits, such as the next cells of "Run
    All", keeps its place.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    line = getattr(kernel, "msg_queue", None)
    if kernel is None or line is None:
        return
    parent, ident = kernel.get_parent("shell"), kernel._parent_ident["shell"]
    for item in [line.get_nowait() for _ in range(line.qsize())]:
        _, dispatch, arguments = item
        if arguments and _kind(kernel.session, arguments[0]).startswith("comm_"):
            await dispatch(*arguments)
            kernel.set_parent(ident, parent, channel="shell")  # what this cell shows stays its own
        else:
            line.put_nowait(item)


def _kind(session: object, frames: list) -> str:  # type: ignore[type-arg]
    """The type in the header of a message; not `deserialize`, which takes a message only once."""
    _, parts = session.feed_identities(frames, copy=False)  # type: ignore[attr-defined]
    return str(session.unpack(parts[1].bytes)["msg_type"])  # type: ignore[attr-defined]
