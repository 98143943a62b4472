"""What macOS does to a long computation: it sleeps, saves energy, cools down, and cuts the GPU short."""

import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

# A command that holds the display up is ended by the GPU's watchdog (ml-explore/mlx#3267): this relaxes it,
# and half of MLX's own 40 or 50 operations and MB go into a command. Not measured on a Mac.
FOR_THE_GPU = {
    "AGX_RELAX_CDM_CTXSTORE_TIMEOUT": "1",
    "MLX_MAX_OPS_PER_BUFFER": "20",
    "MLX_MAX_MB_PER_BUFFER": "20",
}
SLOWER, UPDATES = 2 / 3, 20  # a median speed below that share of the one of the first updates is slow


def trainer_environment(platform: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that trains on `platform`, which is as in `sys.platform`: what is set in
    `environ` stands."""
    return {**(FOR_THE_GPU if platform == "darwin" else {}), **environ}


def hold_sleep_off(pid: int) -> None:
    """Keep a Mac awake while the process `pid` lives; a closed lid, or an empty battery, still stops it."""
    if sys.platform == "darwin":
        with suppress(OSError):
            subprocess.Popen(["caffeinate", "-i", "-s", "-w", str(pid)], stdin=subprocess.DEVNULL)


@dataclass(frozen=True, kw_only=True)
class Power:
    """What slows a Mac down: low power mode, the per cent left in the `battery` while there is nothing else,
    and whether it is `hot` enough to be slowed down."""

    low_power: bool = False
    battery: int | None = None
    hot: bool = False

    @property
    def sentences(self) -> list[str]:
        """What to know of it, in Portuguese; empty when nothing slows it down."""
        battery = f"está a funcionar com a bateria ({self.battery} %), que não chega para um treino longo"
        return [
            *(["está em modo de baixo consumo"] if self.low_power else []),
            *([battery] if self.battery is not None else []),
            *(["está quente, e o sistema abranda-o"] if self.hot else []),
        ]


def power() -> Power:
    """How this computer is fed and cooled; only a Mac says so."""
    if sys.platform != "darwin":
        return Power()
    return parse(*(_pmset(*words) for words in ((), ("batt",), ("therm",))))


def parse(settings: str, battery: str, thermal: str) -> Power:
    """What `pmset -g`, `pmset -g batt` and `pmset -g therm` print comes to."""
    # "lowpowermode" on most Macs; "powermode" (0 automatic, 1 low, 2 high) on those that have all three.
    low = re.search(r"^\s*(?:low)?powermode\s+1\b", settings, re.MULTILINE)
    charge = re.search(r"(\d+)%", battery) if "'Battery Power'" in battery else None
    limits = [int(limit) for limit in re.findall(r"CPU_(?:Speed|Scheduler)_Limit\s*=\s*(\d+)", thermal)]
    warning = re.search(r"Warning Level\s*=\s*[1-9]", thermal)
    return Power(
        low_power=bool(low),
        battery=int(charge[1]) if charge else None,
        hot=bool(warning) or min(limits, default=100) < 100,
    )


class Pace:
    """Notices that training has become slow, and asks the Mac why."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: list[float] = []
        self._said = False

    def why_slow(self, tokens_per_s: float) -> str | None:
        """What slows a Mac down, in Portuguese, when the median speed of the last updates is less than two
        thirds of that of the first ones; said only once, and None where nothing is known to."""
        if self._said or sys.platform != "darwin":
            return None
        if len(self._first) < UPDATES:
            self._first.append(tokens_per_s)
            return None
        self._last = [*self._last, tokens_per_s][-UPDATES:]
        if len(self._last) < UPDATES or median(self._last) >= SLOWER * median(self._first):
            return None
        self._last = []  # ask again only after as many updates
        known = power().sentences
        self._said = bool(known)
        return "; ".join(known) or None


def _pmset(*words: str) -> str:
    try:
        done = subprocess.run(["pmset", "-g", *words], capture_output=True, text=True, timeout=5, check=False)
        return done.stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
