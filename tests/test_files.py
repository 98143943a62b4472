"""A folder takes the place of another whole, or nothing changes: at whichever moment it ends."""

import errno
import os
from pathlib import Path

import pytest

from farense_qlora import files
from farense_qlora.errors import UserError
from farense_qlora.files import Linked, atomic_dir


def write(folder: Path, text: str) -> None:
    with atomic_dir(folder) as partial:
        (partial / "file").write_text(text, encoding="utf-8")


def contents(parent: Path) -> dict[str, str]:
    """The text in each folder below `parent`."""
    return {path.name: (path / "file").read_text(encoding="utf-8") for path in parent.iterdir()}


def fail_from(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException, times: int = 1) -> None:
    """Let the rename `number`, and as many as `times` in all, raise `error`."""
    rename, calls = os.rename, [0]

    def failing(source: Path, target: Path) -> None:
        calls[0] += 1
        if number <= calls[0] < number + times:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "x"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"])
def test_an_end_at_either_rename_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    write(tmp_path / "a", "one")
    fail_from(monkeypatch, number, error)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        write(tmp_path / "a", "two")
    assert contents(tmp_path) == {"a": "one"}


def test_after_a_death_between_the_renames_a_failure_changes_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "one")
    with monkeypatch.context() as context:
        fail_from(context, 2, KeyboardInterrupt(), times=2)  # nor can it be put back: as after a SIGKILL
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "a", "two")
    assert contents(tmp_path) == {".a.old": "one", ".a.partial": "two"} or contents(tmp_path) == {
        ".a.old": "one"
    }
    with pytest.raises(ZeroDivisionError), atomic_dir(tmp_path / "a") as partial:
        (partial / "file").write_text(str(1 // 0), encoding="utf-8")
    assert contents(tmp_path) == {"a": "one"}
    write(tmp_path / "a", "two")
    assert contents(tmp_path) == {"a": "two"}


def test_on_a_mac_data_go_past_the_memory_of_the_disk_where_the_disk_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(files, "FULL_FSYNC", 51)
    monkeypatch.setattr(files.fcntl, "fcntl", lambda _, command: calls.append(f"full {command}"))
    monkeypatch.setattr(files.os, "fsync", lambda _: calls.append("plain"))
    files.fsync(tmp_path)
    assert calls == ["full 51"]

    def refused(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "as SMB and exFAT do")

    monkeypatch.setattr(files.fcntl, "fcntl", refused)
    files.fsync(tmp_path)
    assert calls == ["full 51", "plain"]


def test_a_notebook_shows_a_path_as_a_link_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "output" / "a b").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    page, folder = Linked(tmp_path / "output" / "x.html"), Linked(tmp_path / "output" / "a b")
    assert page._repr_html_() == '<a href="../output/x.html" target="_blank">../output/x.html</a>'
    assert folder._repr_html_() == '<a href="../output/a%20b/README.md" target="_blank">../output/a b</a>'
    assert f"{page}" == str(tmp_path / "output" / "x.html") and page == Path(page)
