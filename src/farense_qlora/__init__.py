"""Teach a 4-bit language model the history of Sporting Clube Farense: QLoRA on Apple's MLX.

`import farense_qlora as fq` is all that a notebook needs: the names below, each imported when it is first
used. What they return draws itself as the last line of a cell.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Config": ".config",
    "doctor": ".training.doctor",
    "panel": ".ui.panel",
    "prepare": ".data.prepare",
    "load_base": ".model.base",
    "load_tokenizer": ".model.base",
    "load_tuned": ".model.base",
    "load_data": ".data.load",
    "RowView": ".ui.row_view",
    "lengths": ".ui.figures",
    "fit": ".training.fit",
    "train": ".training.loop",
    "start": ".training.start",
    "finished": ".training.start",
    "hosts": ".training.peers",
    "Run": ".training.run",
    "watch": ".ui.live",
    "curves": ".ui.figures",
    "runs": ".training.overview",
    "evaluate": ".answers.evaluate",
    "compare": ".answers.evaluate",
    "compare_runs": ".answers.compare",
    "examples": ".answers.evaluate",
    "hardest": ".answers.hardest",
    "trials": ".answers.trials",
    "TrialView": ".ui.trial_view",
    "ComparisonView": ".ui.comparison",
    "BlindVote": ".ui.comparison",
    "RunPicker": ".ui.runs",
    "ask": ".answers.generate",
    "chat": ".ui.chat_box",
    "export": ".exporting.export",
    "merge": ".exporting.merge",
    "serve": ".serving.app",
    "report": ".ui.report",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".model.cpu", __name__).enable()  # before anything imports mlx
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # next time it is found at once
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
