"""Runs go, and change their names, when asked: the one that was named, whole, and nothing beside it."""

import shutil
from pathlib import Path

import pytest
from ui_events import events, write_run

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.files import bytes_in
from farense_qlora.training import run as run_module
from farense_qlora.training.run import Run, all_runs
from farense_qlora.training.worker import take_lock


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs «a» and «b», the second begun from the first."""
    monkeypatch.setattr(run_module, "RUNS", tmp_path / "runs")
    write_run(tmp_path / "runs" / "a", events())
    write_run(tmp_path / "runs" / "b", events(), from_adapter="checkpoints_qlora/a")
    return tmp_path / "runs"


def names() -> set[str]:
    return {run.name for run in all_runs()}


def test_a_deleted_run_is_gone_with_all_its_files_and_says_what_that_gave_back(runs: Path) -> None:
    (runs / "a" / "checkpoints").mkdir()
    (runs / "a" / "checkpoints" / "peso").write_bytes(b"x" * 2_500_000)
    run = Run.open("a")
    said = run.delete()
    assert said == repr(said) == "treino «a» apagado: libertou 2,5 MB"  # as a notebook shows it
    assert [path.name for path in runs.iterdir()] == ["b"]
    assert Run.open("b").config.from_adapter == "checkpoints_qlora/a"
    with pytest.raises(UserError, match=r"nenhum treino chamado «a» em .* \(há: b\)"):
        run.delete()


def test_a_run_that_is_training_stays_and_keeps_its_name(runs: Path) -> None:
    run = Run.open("a")
    lock = take_lock(run.folder)
    assert lock is not None
    with lock:
        for change in (run.delete, lambda: run.rename("c")):
            with pytest.raises(UserError, match=r"«a» não se apaga .* enquanto treina.*stop --run a"):
                change()
    assert names() == {"a", "b"} and Run.open("a").events() == events()
    run.delete()
    assert names() == {"b"}


def test_a_folder_that_is_not_of_a_run_among_the_runs_stays(runs: Path) -> None:
    Config.of("mini").write(runs.parent / "config.json")
    (runs / "notas").mkdir()
    elsewhere = write_run(runs.parent / "a", events())
    for run in (Run(runs / "notas"), elsewhere, Run(runs / ".."), Run(runs / "."), Run(runs / "a" / "best")):
        for change in (run.delete, lambda run=run: run.rename("c")):
            with pytest.raises(UserError, match=r"não há nenhum treino chamado .*\(há: b, a\)"):
                change()
    assert (runs / "notas").is_dir() and (runs.parent / "a" / "events.jsonl").exists() and len(names()) == 2


def test_links_are_not_followed(runs: Path) -> None:
    outside = write_run(runs.parent / "fora", events())
    (runs / "c").symlink_to(outside.folder, target_is_directory=True)
    for change in (Run.open("c").delete, lambda: Run.open("c").rename("d")):
        with pytest.raises(UserError, match=r"«c» é só uma ligação para .*fora"):
            change()
    assert (runs / "c").is_symlink()

    (runs.parent / "fora" / "grande").write_bytes(b"x" * 5_000_000)
    (runs / "a" / "best").symlink_to(outside.folder, target_is_directory=True)
    (runs / "a" / "grande").symlink_to(outside.folder / "grande")
    assert "libertou 0,0 MB" in Run.open("a").delete()
    assert bytes_in(outside.folder) > 5_000_000 and outside.events() == events()


def test_a_deletion_that_dies_leaves_no_run_behind_and_the_next_one_clears_up(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(folder: Path) -> None:
        (folder / "events.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", die)
        Run.open("a").delete()
    assert names() == {"b"} and len([*runs.iterdir()]) == 2
    write_run(runs / "a", events())
    assert Run.open("a").delete().startswith("treino «a» apagado")
    assert [path.name for path in runs.iterdir()] == ["b"]


def test_what_the_disk_refuses_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise PermissionError(13, "no", str(paths[0]))

    monkeypatch.setattr(run_module.os, "rename", refuse)
    for change in (Run.open("a").delete, lambda: Run.open("a").rename("c")):
        with pytest.raises(UserError, match=r"não consigo escrever em .*: sem permissão"):
            change()
    assert names() == {"a", "b"}


def test_a_run_goes_on_under_its_new_name(runs: Path) -> None:
    run = Run.open("a")
    assert run.events() == events()
    assert run.rename("primeiro") == "o treino «a» chama-se agora «primeiro»"
    assert (run.name, run.folder, run.events()) == ("primeiro", runs / "primeiro", events())
    with open(runs / "primeiro" / "events.jsonl", "a") as log:
        log.write(events()[-1].to_json() + "\n")
    assert len(run.events()) == len(events()) + 1 and names() == {"primeiro", "b"}
    assert Run.open("primeiro").delete().startswith("treino «primeiro» apagado")


def test_a_name_that_is_taken_or_cannot_be_one_is_refused(runs: Path) -> None:
    run = Run.open("a")
    (runs / "README.md").touch()
    for name in ("b", "B", "a", "readme.md"):
        with pytest.raises(UserError, match=rf"o nome «{name}» já está em uso"):
            run.rename(name)
    for name in ("../c", ".c", "-c", "c/d", "", str(runs / "a" / "c")):
        with pytest.raises(UserError, match="não serve de nome"):
            run.rename(name)
    assert run.name == "a" and names() == {"a", "b"}
