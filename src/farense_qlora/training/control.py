"""Old names, until the loop takes `Requests`."""

from collections.abc import Callable
from dataclasses import replace

from .requests import Requests

Wishes = Requests
Ask = Callable[[], Wishes]


class Asked:
    """`ask` for a loop that looks for a stop oftener than it can grant the other wishes: none is lost."""

    def __init__(self, ask: Ask):
        self._ask, self._kept = ask, Wishes()

    def stop(self) -> bool:
        """Whether a stop is asked; what else is asked waits for the next call."""
        new, kept = self._ask(), self._kept
        rate = new.learning_rate or kept.learning_rate
        self._kept = replace(new, save=new.save or kept.save, learning_rate=rate)
        return new.stop

    def __call__(self) -> Wishes:
        """What is asked now, and what was kept since the last call."""
        self.stop()
        kept, self._kept = self._kept, Wishes()
        return kept
