"""Watch a run in the notebook: one picture redrawn in place, a Stop button, the last state left behind."""

import asyncio
import base64
import gc
from collections.abc import Sequence

import ipywidgets as widgets
from IPython.display import HTML, display

from ..results.text import decimal
from ..training.events import Evaluated, Event, Finished, Started, Stepped
from ..training.run import Run
from ..training.words import ENDINGS, duration
from .figures import Drawing, loss_curves
from .tables import size

SECONDS_BETWEEN_REDRAWS = 2.0  # drawing takes 0.2 s of a core, which the training wants too


async def watch(run: Run) -> None:
    """Show `run` as it goes and return when it ends; interrupting the cell stops the run and saves it.

    Awaited, so that the kernel hears the button while the cell runs. Reads only the run folder, so it can be
    called again at any time. Raises `UserError` when the run fails.
    """
    _release_memory()
    button = widgets.Button(
        description="Parar", icon="stop", tooltip="Acaba o passo em curso, guarda e termina"
    )

    def stop(_: object = None) -> None:
        run.stop()
        button.description, button.disabled = "A parar…", True

    button.on_click(stop)
    buttons = display(button, display_id=True)
    picture = display(HTML("<p>A preparar o modelo e os dados…</p>"), display_id=True)
    try:
        while run.alive:
            try:
                await asyncio.sleep(SECONDS_BETWEEN_REDRAWS)
                if events := run.events():
                    picture.update(HTML(state(events)))
            except (KeyboardInterrupt, asyncio.CancelledError):  # ipykernel cancels a cell that awaits
                stop()
    finally:
        buttons.update(HTML(""))
        picture.update(HTML(state(events) if (events := run.events()) else ""))
    run.wait()  # raises when it failed


def state(events: Sequence[Event]) -> str:
    """The curves and the figures beside them, as HTML that needs nothing else."""
    started = next((event for event in events if isinstance(event, Started)), None)
    steps = [event for event in events if isinstance(event, Stepped)]
    total = started.total_steps if started else 0
    done = steps[-1].step if steps else 0
    picture = _img(loss_curves(events, total))
    bar = (
        '<div style="height:6px;border-radius:3px;background:rgba(128,128,128,.25);max-width:924px">'
        '<div style="height:6px;border-radius:3px;background:#0072B2;'
        f'width:{100 * done / max(1, total):.1f}%"></div></div>'
    )
    cells = "".join(
        f'<div style="margin-right:28px"><div style="opacity:.65;font-size:12px">{name}</div>'
        f'<div style="font-size:17px;font-variant-numeric:tabular-nums">{value}</div></div>'
        for name, value in figures(events).items()
    )
    end = next((event for event in events if isinstance(event, Finished)), None)
    title = f'<p style="margin:8px 0"><b>{_outcome(end)}</b></p>' if end else ""
    return f'{picture}{bar}<div style="display:flex;flex-wrap:wrap;margin:8px 0">{cells}</div>{title}'


def figures(events: Sequence[Event]) -> dict[str, str]:
    """The numbers beside the curves, by name; speed and time left are of the last updates."""
    started = next((event for event in events if isinstance(event, Started)), None)
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    if started is None or not steps:
        return {}
    last, recent = steps[-1], steps[-30:]
    seconds = sum(step.seconds for step in recent)
    left = (started.total_steps - last.step) * seconds / len(recent)
    ended = any(isinstance(event, Finished) for event in events)
    return {
        "passo": f"{last.step} / {started.total_steps}",
        "época": decimal(last.epoch, 2),
        "perda de treino": decimal(last.loss),
        "perda de validação": decimal(evaluations[-1].loss) if evaluations else "—",
        "tokens/s": decimal(sum(step.tokens for step in recent) / seconds, 0),
        "memória máxima": size(last.peak_memory_gb),
        **({} if ended else {"tempo que falta": duration(left)}),
    }


def _release_memory() -> None:
    """Hand back what mlx keeps of deleted models, gigabytes that a worker on the same machine needs."""
    import mlx.core as mx  # not before farense_qlora.model has chosen the BLAS

    gc.collect()
    mx.clear_cache()


def _outcome(end: Finished) -> str:
    outcome = f"Treino {ENDINGS[end.reason]}, em {duration(end.seconds)}."
    if end.best_loss is None:
        return outcome
    return f"{outcome} Melhor perda de validação: {decimal(end.best_loss)} (passo {end.best_step})."


def _img(figure: Drawing) -> str:
    data = base64.b64encode(figure._repr_png_()).decode()
    return f'<img alt="curvas" style="max-width:100%;width:924px" src="data:image/png;base64,{data}">'
