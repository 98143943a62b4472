"""A progress bar on stderr."""

import sys
from typing import Any, TextIO

from tqdm import tqdm


class Bar(tqdm):
    """A bar that is gone when it ends; where nothing can be drawn over, as in a file, a line a minute."""

    def __init__(self, **options: Any):
        if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
            options |= {"file": _Lines(sys.stderr), "mininterval": 60, "miniters": 1, "delay": 1}
        super().__init__(leave=False, **options)


class _Lines:
    """A file for `tqdm` that keeps of each drawing its text, as a line."""

    def __init__(self, file: TextIO):
        self.file, self.encoding, self.flush = file, file.encoding, file.flush

    def write(self, text: str) -> None:
        if line := text.strip():
            self.file.write(f"{line}\n")
