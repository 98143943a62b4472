"""The two sets of a run, as they are trained on and validated with: tokens, without repeated rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import HOME, Config
from .duplicates import Repeats, find_repeats
from .tokens import Encoded, encode_file


@dataclass(frozen=True)
class Sets:
    """What a run sees; `repeats` are the rows that were left out of it."""

    training: Encoded
    validation: Encoded
    repeats: Repeats


def read_sets(config: Config, tokenizer: Any, model: Path) -> Sets:
    """The sets that `config` names, as tokens of the model in the folder `model`.

    Raises `UserError` on rows that cannot be read or have nothing left to learn, unless `config.skip_bad`.
    """
    files = HOME / config.train_data, HOME / config.val_data
    repeats = find_repeats(*files, config.skip_bad)
    training, validation = (
        encode_file(path, tokenizer, model, config.max_seq_length, config.skip_bad).without(
            [repeat.line for repeat in left_out]
        )
        for path, left_out in ((files[0], repeats.training), (files[1], repeats.validation))
    )
    return Sets(training, validation, repeats)
