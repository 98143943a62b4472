"""The base model in 4 bits, its adapters, its loss, and what makes both fast."""

import sys
from typing import Any


def without_torch() -> None:
    """Keep Transformers from loading PyTorch where it is installed, in a process of ours alone: that takes
    seconds and 180 MB of memory, and nothing here makes use of it."""
    modules: dict[str, Any] = sys.modules
    modules.setdefault("torch", None)  # which the import system takes for «there is none»
