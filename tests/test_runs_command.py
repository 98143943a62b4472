"""`farense-qlora runs` lists runs newest first, deletes those named once somebody agrees, and renames one."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from ui_events import events, write_run

from farense_qlora.cli import main
from farense_qlora.training import run as run_module
from farense_qlora.training.run import all_runs
from farense_qlora.training.worker import take_lock


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs «a», «b» and «c», begun in this order, of some 0.5 MB each."""
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    for began, name in enumerate("abc"):
        run = write_run(tmp_path / name, [replace(event, time=float(began)) for event in events()])
        (run.folder / "peso").write_bytes(b"x" * 500_000)
    return tmp_path


def names() -> str:
    return "".join(run.name for run in all_runs())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_newest_run_stands_first_with_the_disk_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.endswith("disco") and [row[0] for row in rows] == ["c", "b", "a"]
    assert all(row.endswith("0,5 MB") for row in rows)
    assert main(["runs", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["runs"]
    assert [row["run"] for row in said] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("answer", "left"), [("s\n", "b"), ("SIM\n", "b"), ("\n", "cba"), ("não\n", "cba"), ("", "cba")]
)
def test_somebody_at_the_terminal_is_asked(
    answer: str, left: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    code = main(["runs", "--delete", "a", "c", "a"])
    said = capsys.readouterr()
    assert said.err == "Apagar os treinos a, c (1,0 MB)? [s/N] " and names() == left
    if left == "b":
        assert code == 0
        assert said.out == "treino «a» apagado: libertou 0,5 MB\ntreino «c» apagado: libertou 0,5 MB\n"
    else:
        assert (code, said.out) == (1, "nada foi apagado\n")


def test_without_a_terminal_nothing_goes_unless_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("s\n"))
    assert main(["runs", "--delete", "a"]) == 2 and names() == "cba"
    assert "para apagar a (0,5 MB) junte --yes" in capsys.readouterr().err
    assert main(["runs", "--yes"]) == 2
    assert "--yes só serve com --delete NOME" in capsys.readouterr().err
    assert main(["runs", "--delete", "a", "--yes", "--json"]) == 0 and names() == "cb"
    said = json.loads(capsys.readouterr().out)
    assert (said["deleted"], said["status"]) == (["a"], "ok") and 500_000 < said["bytes"] < 550_000


def test_none_goes_when_one_of_them_cannot(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = take_lock(runs / "b")
    assert lock is not None
    with lock:
        assert main(["runs", "--delete", "a", "b", "--yes"]) == 2
    assert main(["runs", "--delete", "a", "nada", "--yes"]) == 2
    assert "«nada»" in (said := capsys.readouterr().err) and "(há: c, b, a)" in said and names() == "cba"


def test_commands_without_a_name_take_the_newest_finished_run(runs: Path, tmp_path: Path) -> None:
    write_run(runs / "d", [replace(event, time=9.0) for event in events()[:-1]])
    assert main(["report", "--to", str(tmp_path / "out")]) == 0
    assert [page.name for page in (tmp_path / "out").iterdir()] == ["relatorio-c.html"]


def test_a_run_gets_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--rename", "b", "melhor"]) == 0
    assert capsys.readouterr().out == "o treino «b» chama-se agora «melhor»\n"
    assert main(["runs", "--rename", "melhor", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": "b", "status": "ok"}
    assert main(["runs", "--rename", "b", "C"]) == 2
    assert main(["runs", "--rename", "b", "d", "--delete", "a"]) == 2 and names() == "cba"
