"""The event log of a run, `events.jsonl`: one worker appends to it, anyone reads it, one event a line."""

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from ..errors import disk_error
from .events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Paused,
    Restarted,
    Resumed,
    RolledBack,
    Sampled,
    Saved,
    Started,
    Stepped,
    from_json,
)

NAME = "events.jsonl"
ROOM = "events.room"
ROOM_BYTES = 65_536
SECONDS_BETWEEN_TRIES = 2.0


class EventWriter:
    """Appends events to the log in the run folder `folder`, each line whole; close it at the end.

    A line torn by a crash is cut off first. When the disk is full, writing waits for room, and says so in the
    log: a file beside it holds some room for that, which is then given up.
    """

    def __init__(self, folder: Path, should_stop: Callable[[], bool] = lambda: False):
        self._file = open(folder / NAME, "ab+", buffering=0)  # noqa: SIM115  closed by `close`
        self._room = folder / ROOM
        self._should_stop = should_stop
        self._file.seek(0)
        self._end = self._file.read().rfind(b"\n") + 1
        self._file.truncate(self._end)
        self._made_room(ROOM_BYTES)

    def write(self, event: Event) -> None:
        """Append `event`; all but a `Stepped` are on the disk when this returns.

        Raises `OSError` when the disk is full and `should_stop()` says not to wait, or fails otherwise.
        """
        while True:
            try:
                self._append(event)
                return
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self._wait_for_room(event.step, error)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._room.unlink(missing_ok=True)

    def _append(self, event: Event) -> None:
        line, written = (event.to_json() + "\n").encode(), 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
            if not isinstance(event, Stepped):
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        self._end += len(line)

    def _wait_for_room(self, step: int, error: OSError) -> None:
        """Give up the room that was held, say in it that training waits, and wait until four times as much
        is had."""
        self._room.unlink(missing_ok=True)
        with suppress(OSError):  # another program was faster
            self._append(Paused(step=step, cause=str(disk_error(error, self._room.parent))))
        while not self._should_stop():
            if self._made_room(4 * ROOM_BYTES):
                with suppress(OSError):
                    self._append(Resumed(step=step))
                return
            time.sleep(SECONDS_BETWEEN_TRIES)
        raise error

    def _made_room(self, size: int) -> bool:
        """Whether `size` bytes, to hold for when the disk is full, could be had."""
        try:
            self._room.write_bytes(os.urandom(size))  # which no file system can store in less
            return True
        except OSError:
            return False


class EventReader:
    """The events of the run in `folder`: `poll` reads what is new in the log, each byte once; `events` are
    those that count so far (see `replay`).

    A log that was begun again, because its run had saved nothing, is read again from its first event. It is
    known by its first line, which holds a time: file systems give a new file the inode of a deleted one.
    """

    def __init__(self, folder: Path):
        self.events: list[Event] = []
        self.folder, self._first, self._position = folder, b"", 0
        self._lock = Lock()  # widgets' callbacks run on any thread

    def poll(self) -> list[Event]:
        """The events written since the last call, also those that undo or repeat earlier ones; lines that
        hold no event are passed over, since the others still tell much."""
        with self._lock, suppress(FileNotFoundError):
            events = [event for line in self._read().splitlines() if (event := from_json(line))]
            self.events = replay(events, self.events)
            return events
        return []

    def _read(self) -> bytes:
        """The whole lines after those read before."""
        with open(self.folder / NAME, "rb") as file:
            if file.read(len(self._first)) != self._first or file.seek(0, os.SEEK_END) < self._position:
                self.events, self._first, self._position = [], b"", 0
            file.seek(self._position)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self._first = self._first or text[: text.find(b"\n") + 1]
        self._position += len(text)
        return text


def replay(events: Iterable[Event], before: Sequence[Event] = ()) -> list[Event]:
    """Those of `events` that count, after those from `before`: what a crash or a roll-back undid is dropped,
    what was done again stands once."""
    kept = list(before)
    for event in events:
        match event:
            case Started(step=step):
                _resume_from(kept, step)
            case RolledBack(step=step):
                undone = (Stepped, Evaluated, Sampled, Saved)
                kept = [old for old in kept if old.step <= step or not isinstance(old, undone)]
            case Evaluated(step=0):  # a run that dies before its first checkpoint evaluates once more
                kept = [old for old in kept if not isinstance(old, Evaluated | Sampled)]
        kept.append(event)
    return kept


def _resume_from(kept: list[Event], step: int) -> None:
    """Drop what came after the checkpoint of `step`, and the word that it was saved, which is given again.

    A worker that died after it saved and before it said so has left no such word: then what counts are the
    events up to that step.
    """
    for i in reversed(range(len(kept))):
        if isinstance(kept[i], Saved) and kept[i].step == step:
            kept[i:] = [old for old in kept[i:] if isinstance(old, Restarted)]
            return
    kept[:] = [old for old in kept if old.step <= step and not isinstance(old, Finished | Failed)]
