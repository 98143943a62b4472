"""The settings that a command was given, with its paths as the person who typed them means them."""

import argparse
from pathlib import Path
from typing import Any

from ..config import HOME, Config


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the flags give. A path is of where the user stands, or else of the project's folder;
    one that is not the same in both is whole, and so is that of a file which is nowhere."""
    settings = {name: value for name, value in vars(args).items() if name in Config.model_fields}
    for name in ("train_data", "val_data", "chat_template", "from_adapter", "hosts"):
        if not (value := settings.get(name)):
            continue
        here, there = Path(value), HOME / value
        a_file = name == "hosts" or (name.endswith("_data") and here.suffix)  # and no id of the hub
        if here.exists():
            whole = not (there.exists() and here.samefile(there))
        else:
            whole = bool(a_file) and not there.exists()
        if whole:
            settings[name] = str(here.absolute())
    return settings
