"""`farense-qlora hosts` and `train --hosts`, as they are typed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

TWO = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2


def test_two_processes_of_this_computer_are_ready_and_train(
    farense: Command, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "hosts.json"
    file.write_text(json.dumps(TWO))
    done = farense("hosts", file)
    assert "127.0.0.1 (n.º 2)" in done.stdout and "pronto (" in done.stdout, done.stderr
    tiny = ("--model", tiny_model, "--batch-size", 2, "--max-steps", 3, "--epochs", 9)
    done = farense("train", "--run", "juntos", *tiny, "--hosts", file)
    assert done.returncode == 0 and "treina em 2 computadores: 127.0.0.1 (n.º 1), " in done.stderr, (
        done.stderr
    )


@pytest.mark.parametrize("backend", ["ring", "mpi"])
def test_mlx_launch_may_start_them(backend: str, tiny_model: Path, tmp_path: Path) -> None:
    if backend == "mpi" and not shutil.which("mpirun"):
        pytest.skip("sem MPI neste computador")
    programs = Path(sys.executable).parent
    launch = [programs / "mlx.launch", "-n", "2", "--backend", backend, "--", programs / "farense-qlora"]
    tiny = ["train", "--run", "juntos", "--model", tiny_model, "--batch-size", "2", "--max-steps", "3"]
    environment = {**os.environ, "FARENSE_HOME": str(tmp_path)}
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}."}) + "\n" for n in range(40)))
    done = subprocess.run(
        [*map(str, launch), *map(str, tiny), "--train-data", str(rows)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "treina em 2 computadores" in done.stdout + done.stderr, done.stdout + done.stderr
    assert (tmp_path / "checkpoints_qlora/juntos/checkpoints/step-000003").exists()


def test_nothing_to_show_is_said(farense: Command) -> None:
    assert "diga o ficheiro dos computadores, ou --plan" in farense("hosts").stderr


def test_the_plan_is_a_table(farense: Command, tiny_model: Path) -> None:
    done = farense("hosts", "--plan", "--model", tiny_model, "--tokens-per-second", "1000,5", "--json")
    rows = json.loads(done.stdout)["rows"]
    assert [row["Computadores"] for row in rows] == [1, 2, 4, 8, 64, 1000]
