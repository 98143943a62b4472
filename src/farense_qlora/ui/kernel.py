"""Let an awaiting cell hear its widgets in every ipykernel that this project may meet."""

from IPython import get_ipython


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
