"""Files and folders written whole or not at all: temporary name, fsync, rename."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError, reason


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `folder`, and the place of what was there, at the end.

    When the block fails nothing changes. Raises `UserError` when `folder` cannot be written.
    """
    partial, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in [*partial.iterdir(), partial]:
            _to_disk(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial, folder)
        _to_disk(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(f"não consigo escrever em {folder}: {reason(error)}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` at the end; raises `UserError` if it cannot."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _to_disk(partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"não consigo escrever em {path}: {reason(error)}") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
