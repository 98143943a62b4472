"""What `runs --delete` asks before it deletes."""

import sys
from collections.abc import Sequence
from typing import Any

import farense_qlora as fq

from ..errors import UserError
from ..files import bytes_in
from ..text import size


def delete(names: Sequence[str], yes: bool) -> tuple[dict[str, Any], str]:
    """Delete the runs called `names`, once somebody at the terminal agrees unless `yes`; returns what is
    gone, for programs and for people.

    Raises `UserError`, with nothing deleted, when one of them cannot go and when there is nobody to ask.
    """
    doomed = [fq.Run.open(name) for name in dict.fromkeys(names)]
    for run in doomed:
        run.hold().close()
    taken = sum(bytes_in(run.folder) for run in doomed)
    what = f"{', '.join(run.name for run in doomed)} ({size(taken / 1e9)})"
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"sem terminal não há a quem perguntar: para apagar {what} junte --yes")
        runs = "o treino" if len(doomed) == 1 else "os treinos"
        print(f"Apagar {runs} {what}? [s/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("s", "sim"):
            return {"deleted": [], "bytes": 0}, "nada foi apagado"
    said = [run.delete() for run in doomed]
    return {"deleted": [run.name for run in doomed], "bytes": taken}, "\n".join(said)
