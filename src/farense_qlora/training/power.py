"""What macOS does to a long computation: it sleeps, saves energy, cools down, and cuts the GPU short."""

import re
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
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


def power() -> list[str]:
    """What slows this computer down, in Portuguese; only a Mac says so."""
    if sys.platform != "darwin":
        return []
    return parse(*(_pmset(*words) for words in ((), ("batt",), ("therm",))))


def parse(settings: str, battery: str, thermal: str) -> list[str]:
    """What slows a Mac down, by what `pmset -g`, `pmset -g batt` and `pmset -g therm` print."""
    slowed = []
    # "lowpowermode" on most Macs; "powermode" (0 automatic, 1 low, 2 high) on those that have all three.
    if re.search(r"^\s*(?:low)?powermode\s+1\b", settings, re.MULTILINE):
        slowed.append("está em modo de baixo consumo")
    if "'Battery Power'" in battery and (charge := re.search(r"(\d+)%", battery)):
        slowed.append(f"está a funcionar com a bateria ({charge[1]} %), que não chega para um treino longo")
    limits = re.findall(r"CPU_(?:Speed|Scheduler)_Limit\s*=\s*(\d+)", thermal)
    if re.search(r"Warning Level\s*=\s*[1-9]", thermal) or any(int(limit) < 100 for limit in limits):
        slowed.append("está quente, e o sistema abranda-o")
    return slowed


class Pace:
    """Notices that training has become slow, and asks the Mac why."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last = deque[float](maxlen=UPDATES)
        self._said = False

    def why_slow(self, tokens_per_s: float) -> str | None:
        """What slows a Mac down, in Portuguese, when the median speed of the last updates is less than two
        thirds of that of the first ones; said only once, and None where nothing is known to."""
        if self._said or sys.platform != "darwin":
            return None
        if len(self._first) < UPDATES:
            self._first.append(tokens_per_s)
            return None
        self._last.append(tokens_per_s)
        if len(self._last) < UPDATES or median(self._last) >= SLOWER * median(self._first):
            return None
        self._last.clear()  # ask again only after as many updates
        known = power()
        self._said = bool(known)
        return "; ".join(known) or None


def _pmset(*words: str) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(["pmset", "-g", *words], capture_output=True, text=True, timeout=5).stdout
    return ""
