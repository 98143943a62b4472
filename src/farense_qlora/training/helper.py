"""The process on another computer that trains a run together with the first, which started it."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ..config import Config
from ..errors import UserError
from ..model import cpu, without_torch
from .hosts import RANK, PeerLost, greeting
from .keeper import LOST
from .peers import SECONDS_BETWEEN_SIGNS, SECONDS_OF_SILENCE, enter, read_line
from .power import hold_sleep_off, trainer_environment


def main() -> int:
    """Train with the others to the end, without a folder; the first says what goes wrong.

    One that the first started says what it is on its standard output, and hears on its standard input who the
    others are; one that `mlx.launch` started knows.
    """
    os.environ |= trainer_environment(sys.platform, os.environ)
    hold_sleep_off(os.getpid())
    interrupted: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: interrupted.append(received))
    cpu.enable()
    without_torch()
    from .loop import train
    from .together import load

    if RANK not in os.environ and not _meet_the_first():
        return LOST
    try:
        config, base, data = load(Config, say=lambda event: None)
        for _ in train(config, base, data, Path(os.devnull), stops=lambda: 2 * len(interrupted)):
            pass
    except PeerLost:
        return LOST
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _meet_the_first() -> bool:
    """Greet the first process, hear who the others are, and watch it from then on; False when it is gone."""
    # What libraries print goes to the log with the errors.
    signs = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    heard = os.fdopen(sys.stdin.fileno(), "rb", buffering=0)
    signs.write(json.dumps(greeting()).encode() + b"\n")
    while (line := read_line(heard, SECONDS_OF_SILENCE)) == b"\n":
        pass
    if not line:
        return False

    def give_signs() -> None:
        while True:
            signs.write(b"\n")  # fails when the first is gone, of which the other thread hears
            time.sleep(SECONDS_BETWEEN_SIGNS)

    def listen() -> None:
        while read_line(heard, SECONDS_OF_SILENCE):
            pass
        os._exit(LOST)  # nothing here is worth more than a moment, and the rest may be waiting inside MLX

    enter(*json.loads(line))
    for watch in (give_signs, listen):
        threading.Thread(target=watch, daemon=True).start()
    return True


if __name__ == "__main__":
    sys.exit(main())
