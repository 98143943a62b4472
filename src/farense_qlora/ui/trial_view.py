"""Trials in the notebook as they go: the curves over each other, and what is known of each so far."""

import asyncio
from collections.abc import Generator

import ipywidgets as widgets
from IPython.display import HTML, display

from ..answers.trials import Trials
from .figures import compare_curves
from .kernel import answer_widgets, hear_widgets, tethered
from .live import action_button, picture

SECONDS_BETWEEN_REDRAWS = 5.0  # a picture takes a tenth of one from whoever trains


class TrialView:
    """Curves and table of `trials` in the cell that made it, until they end. Awaiting it waits for that; to
    interrupt the cell that waits stops them.

    >>> await fq.TrialView(fq.trials())  # doctest: +SKIP
    """

    def __init__(self, trials: Trials):
        self._trials = trials
        answer_widgets()
        message = widgets.HTML()
        stop = action_button(message, "Parar", "stop", "Guarda o que está a treinar e termina", self._stop)
        self._buttons = display(tethered(widgets.HBox([stop, message])), display_id=True)
        self._picture, self._table = (display(HTML(""), display_id=True) for _ in range(2))
        self._task = asyncio.create_task(self._follow())

    def __await__(self) -> Generator[object, None, None]:
        return self._end().__await__()

    async def _end(self) -> None:
        await self._task
        self._draw()  # once more: nbconvert takes only what the cell that runs has sent

    def _stop(self) -> str:
        self._trials.stop()
        return "a parar; fq.trials() continua-os de onde ficarem"

    async def _follow(self) -> None:
        while self._trials.alive:
            try:
                await asyncio.sleep(SECONDS_BETWEEN_REDRAWS)
                await hear_widgets()
                self._draw()
            except (KeyboardInterrupt, asyncio.CancelledError):  # ipykernel cancels a cell that awaits
                self._stop()
        self._buttons.update(HTML(""))
        self._draw()

    def _draw(self) -> None:
        self._table.update(self._trials)
        if runs := {self._trials.settings(run): run.events() for run in self._trials.runs}:
            self._picture.update(picture(compare_curves(runs)))
