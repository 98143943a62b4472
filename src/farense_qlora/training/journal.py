"""The file `events.jsonl` of a run: appended to by one worker, read by anyone, one event a line."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from .events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    RolledBack,
    Sampled,
    Saved,
    Started,
    Stepped,
    from_json,
)

NAME = "events.jsonl"
SECONDS_BETWEEN_TRIES = 2.0


class Journal:
    """Appends events to the run folder `folder`, each line whole.

    A line torn by a crash is cut off first. When the disk is full, writing waits for room; raises `OSError`
    when `gives_up()` says so meanwhile, or for any other failure of the disk.
    """

    def __init__(self, folder: Path, gives_up: Callable[[], bool] = lambda: False):
        self._file = open(folder / NAME, "ab+", buffering=0)  # noqa: SIM115  closed by __exit__
        self._gives_up = gives_up
        self._file.seek(0)
        text = self._file.read()
        self._end = text.rfind(b"\n") + 1
        self._file.truncate(self._end)

    def write(self, event: Event) -> None:
        """Append `event`; all but a `Stepped` are on the disk when this returns. Raises `OSError` as said."""
        line = (event.to_json() + "\n").encode()
        while True:
            try:
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:])
                if not isinstance(event, Stepped):
                    os.fsync(self._file.fileno())
                break
            except OSError as error:
                self._file.truncate(self._end)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self._gives_up():
                    raise
                time.sleep(SECONDS_BETWEEN_TRIES)
        self._end += len(line)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(folder: Path, position: int = 0) -> tuple[list[Event], int]:
    """The events in whole lines after byte `position`, and where they end; passes over what is none."""
    try:
        with open(folder / NAME, "rb") as file:
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return [], position
    whole = text[: text.rfind(b"\n") + 1]
    events = []
    for line in whole.splitlines():
        try:
            events.append(from_json(line.decode()))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # the disk's fault; the others still tell much
            continue
    return events, position + len(whole)


class Reader:
    """The events of a run that is under way, each byte of its journal read once."""

    def __init__(self, folder: Path):
        self.folder, self._file = folder, -1
        self._events: list[Event] = []
        self._position = 0

    def news(self) -> bool:
        """Read what was written since the last time; whether there was any."""
        try:
            file = (self.folder / NAME).stat().st_ino
        except FileNotFoundError:
            return False
        if file != self._file:  # a run that had saved nothing began again
            self._file, self._events, self._position = file, [], 0
        new, self._position = read(self.folder, self._position)
        self._events += new
        return bool(new)

    @property
    def events(self) -> list[Event]:
        """What counts of all that was read."""
        return settled(self._events)


def settled(events: list[Event]) -> list[Event]:
    """What counts of all that was written: work done again, after a crash or a roll-back, stands once."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Started):
            kept = _until(kept, event.step)
        elif isinstance(event, RolledBack):
            undone = (Stepped, Evaluated, Sampled, Saved)
            kept = [old for old in kept if old.step <= event.step or not isinstance(old, undone)]
        elif isinstance(event, Evaluated):  # before the first checkpoint, one may be done again
            kept = [old for old in kept if old.step != event.step or not isinstance(old, Evaluated | Sampled)]
        kept.append(event)
    return kept


def _until(events: list[Event], step: int) -> list[Event]:
    """The events up to the moment when the checkpoint of `step` was saved, which a worker that goes on from
    it says again; what came later is undone.

    A worker that died between the saving and the saying has left no such moment.
    """
    for index in range(len(events) - 1, -1, -1):
        if isinstance(events[index], Saved) and events[index].step == step:
            return events[:index]
    return [old for old in events if old.step <= step and not isinstance(old, Finished | Failed)]
