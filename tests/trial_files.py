"""Trials that never were, as they lie on the disk."""

import json
from pathlib import Path

from farense_qlora.answers.trials import Trials
from farense_qlora.config import Config


def write_trials(folder: Path, *results: tuple[int, int, list[float]]) -> Trials:
    """Three trials of other ranks, with the losses of their rows of ten tokens at each rung."""
    folder.mkdir(parents=True)
    configs = [Config(rank=rank).model_dump() for rank in (2, 4, 8)]
    plan = {"configs": configs, "eval_every": [1] * 3, "shares": [0.5, 1.0], "deadline": None}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    lines = [
        json.dumps({"trial": t, "rung": r, "step": r + 1, "losses": losses, "tokens": [10] * len(losses)})
        for t, r, losses in results
    ]
    (folder / "results.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Trials(folder)
