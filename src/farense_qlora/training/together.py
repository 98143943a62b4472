"""What processes that train together train with: the settings and the rows of the first, and one model."""

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from ..config import CACHE, Config
from ..data.load import Data, load_data
from ..data.tokens import Encoded
from ..errors import UserError
from ..files import atomic_dir
from ..model.base import Base, load_base
from . import ranks
from .events import Copied, Event

SECONDS_BETWEEN_WORDS = 5.0


def load(read: Callable[[], Config], say: Callable[[Event], None]) -> tuple[Config, Base, Data]:
    """The settings that `read` gives in the first process, and in all their base model and their rows, which
    the others take from the first, and so the model, where it is not; `say` is told how that goes.

    Raises `UserError`, in all, as `read`, `load_base` and `load_data` do, and when a model is another.
    """
    config = Config.parse(ranks.first(lambda: read().model_dump(mode="json")))
    if ranks.size() == 1:
        base = load_base(config)
        return config, base, load_data(config, base)
    base = _the_same_base(config, say)
    return config, base, _the_same_rows(config, base)


def _the_same_base(config: Config, say: Callable[[Event], None]) -> Base:
    def own() -> Base | None:
        try:
            return load_base(config)
        except UserError:
            if ranks.rank() == 0:
                raise
            return None

    base = ranks.everywhere(own)
    if without := list(filter(None, ranks.said("" if base else ranks.name()))):
        tell = lambda gb, whole: say(Copied(step=0, hosts=tuple(without), gb=gb, whole_gb=whole))
        folder = _copy_of(base.path if base else None, tell)
        there = config.changed(model=str(folder), chat_template="")  # the template is in the copy
        base = ranks.everywhere(lambda: base or load_base(there))
    assert base is not None
    ours, *theirs = zip(ranks.said(ranks.name()), ranks.said(_checksum(base.model)), strict=True)
    if others := " e ".join(f"«{name}»" for name, checksum in theirs if checksum != ours[1]):
        raise UserError(
            f"o modelo {config.base_model} em {others} não é o mesmo que aqui: apague-o lá, e copia-se deste "
            "computador"
        )
    return base


def _copy_of(folder: Path | None, tell: Callable[[float, float], None]) -> Path:
    """The files of the first process's `folder`, in the cache of each that has no folder. `tell` is told now
    and then how many GB have gone, of how many."""

    def about() -> list[tuple[str, int]]:
        assert folder is not None
        return [(path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()]

    def parts() -> Iterator[tuple[str, bytes]]:
        gone, whole, told = 0, sum(size for _, size in files), -math.inf
        for name, size in files:
            for start in range(0, size, ranks.BYTES_AT_ONCE):
                if time.monotonic() > told + SECONDS_BETWEEN_WORDS:
                    tell(gone / 1e9, whole / 1e9)
                    told = time.monotonic()
                part = ranks.spread(_part(folder / name, start) if folder and ranks.rank() == 0 else b"")
                gone += len(part)
                yield name, part

    files = ranks.first(about)
    target = CACHE / "copies" / hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
    wanted = folder is None and not target.exists()
    if ranks.each([wanted]).any() and not wanted:
        deque(parts(), maxlen=0)
    elif wanted:
        with atomic_dir(target) as partial:
            for name, part in parts():
                with open(partial / Path(name).name, "ab") as file:
                    file.write(part)
    return target


def _part(path: Path, start: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(ranks.BYTES_AT_ONCE)


def _checksum(model: nn.Module) -> str:
    """A number that differs where the weights do."""
    sums = [
        array.reshape(-1).view(mx.uint8).sum() * mx.array(1 + i, mx.uint32)
        for i, (_, array) in enumerate(tree_flatten(model.parameters()))
    ]
    return str(mx.stack(sums).sum().item())


def _the_same_rows(config: Config, base: Base) -> Data:
    here: Data | None = None

    def read() -> None:
        nonlocal here
        here = load_data(config, base)

    ranks.first(read)
    if here is not None:
        for rows in (here.training, here.validation, here.general):
            ranks.spread(rows.to_bytes())
        return here
    training, validation, general = (Encoded.from_bytes(ranks.spread(b"")) for _ in range(3))
    return Data(
        config=config,
        tokenizer=base.tokenizer,
        training=training,
        validation=validation,
        general=general,
        asked_too={},
        repeats=(),
        leaks=(),
        memorised=False,
        conflicts=(),
    )
