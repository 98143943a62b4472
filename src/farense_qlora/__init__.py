"""Teach a 4-bit language model the history of Sporting Clube Farense: QLoRA on Apple's MLX.

`import farense_qlora as fq` is all that a notebook needs: the names below, each imported when it is first
used. What they return draws itself as the last line of a cell.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    ".config": "Config",
    ".data.prepare": "prepare",
    ".data.load": "load_data",
    ".model.base": "load_base load_tokenizer load_tuned",
    ".training.doctor": "doctor",
    ".training.fit": "fit",
    ".training.loop": "train",
    ".training.start": "start finished",
    ".training.peers": "hosts",
    ".training.run": "Run",
    ".training.overview": "runs",
    ".answers.evaluate": "evaluate compare examples",
    ".answers.compare": "compare_runs",
    ".answers.hardest": "hardest",
    ".answers.trials": "trials",
    ".answers.generate": "ask",
    ".exporting.export": "export",
    ".exporting.merge": "merge",
    ".serving.app": "serve",
    ".ui.panel": "panel",
    ".ui.row_view": "RowView",
    ".ui.figures": "curves lengths",
    ".ui.live": "watch TrialView",
    ".ui.comparison": "RunPicker ComparisonView BlindVote",
    ".ui.chat_box": "chat",
    ".ui.report": "report",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
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
