"""Files and folders written whole or not at all: temporary name, fsync, rename; and their checksums."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from html import escape
from pathlib import Path
from stat import S_ISREG
from urllib.parse import quote

from .errors import disk_error

CHECKSUMS = "checksums.json"
# What takes data past the memory of the disk itself; only macOS has it, whose `fsync` stops there.
FULL_FSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)


class Linked(type(Path())):  # type: ignore[misc]
    """A path that a notebook shows as a link, from where its user stands; that of a folder, to its README."""

    def _repr_html_(self) -> str:
        shown = os.path.relpath(self)
        target = os.path.join(shown, "README.md") if self.is_dir() else shown
        return f'<a href="{quote(target)}" target="_blank">{escape(shown)}</a>'


@contextmanager
def atomic_dir(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the name `folder`, and the place of what was there, at the end;
    when the block fails, or is interrupted, nothing changes. Raises `UserError` when `folder` cannot be
    written, a `DiskFullError` when that is for want of room."""
    partial, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    try:
        put_back(folder)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        for path in [*partial.iterdir(), partial]:
            fsync(path)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial, folder)
        fsync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise disk_error(error, folder) from None
    finally:
        with suppress(OSError):
            put_back(folder)
        shutil.rmtree(partial, ignore_errors=True)


def put_back(folder: Path) -> None:
    """Give `folder` back what was in it, where an `atomic_dir` ended between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the name `path` at the end; raises as `atomic_dir` does."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        fsync(partial)
        os.replace(partial, path)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        with suppress(OSError):
            partial.unlink()


def fsync(path: Path) -> None:
    """Return when the file or folder `path` is on the disk, and not only in a memory, be it the disk's."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if FULL_FSYNC is not None:
            with suppress(OSError):  # network disks and some others do not know it
                fcntl.fcntl(descriptor, FULL_FSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)):
            raise  # some network disks do this with files only
    finally:
        os.close(descriptor)


def in_icloud(path: Path) -> str:
    """What to add, in Portuguese, to the news that `path` or a file in it is not here: that iCloud has it."""
    away = path.with_name(f".{path.name}.icloud").exists() or any(path.glob(".*.icloud"))
    return " (está só na iCloud: abra a pasta no Finder e escolha «Descarregar agora»)" if away else ""


def sha256(path: Path) -> str:
    """The SHA-256 of the file `path`, in hexadecimal."""
    with open(path, "rb") as file:
        return file_digest(file, "sha256").hexdigest()


def bytes_in(folder: Path) -> int:
    """What the files in `folder` take on the disk, while a worker may be writing and deleting them."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                about = os.lstat(os.path.join(parent, name))
                total += about.st_size if S_ISREG(about.st_mode) else 0
    return total


def write_checksums(folder: Path) -> None:
    """Write down, in `folder`, the checksum of each of its files."""
    sums = {name: sha256(folder / name) for name in _files(folder)}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def verify(folder: Path) -> str | None:
    """What is wrong with a folder that `write_checksums` left, in Portuguese; None when it is whole."""
    try:
        sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        for name, expected in sums.items():
            if sha256(folder / name) != expected:
                return f"{name} não é o que foi gravado"
    except FileNotFoundError as error:
        return f"falta {Path(error.filename).name}"
    except (OSError, ValueError, AttributeError, TypeError):
        return f"{CHECKSUMS} não se lê"
    return None


def touched(folder: Path) -> str | None:
    """What somebody has done since to a folder that `write_checksums` left: a file changed, gone or added, in
    Portuguese; None when it is as it was left."""
    if reason := verify(folder):
        return reason
    known = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    added = [name for name in _files(folder) if name not in known and name != CHECKSUMS]
    return f"{added[0]} foi lá posto depois" if added else None


def _files(folder: Path) -> list[str]:
    """All that is in `folder` but folders, without what macOS leaves wherever it looks."""
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    return sorted(name for name in names if not name.rsplit("/")[-1].startswith((".DS_Store", "._")))
