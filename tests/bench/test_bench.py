"""The bench measures both trainers on the same work and says how they compare."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bars import bench_bars
from workloads import WORKLOADS, bench, measured_table, ratios, ratios_table, report, write_rows

from farense_qlora.config import Config
from farense_qlora.model.base import load_base

BENCH = Path(__file__).parent


def test_both_trainers_are_measured_on_the_same_work() -> None:
    turns: list[str] = []
    results = bench(["tiny"], rounds=1, say=turns.append)
    assert [r.trainer for r in results] == list(WORKLOADS["tiny"].trainers) and len(turns) == 3
    ours, theirs, with_blas = results
    assert theirs.loss == pytest.approx(with_blas.loss, rel=1e-5)  # the same rows, another BLAS
    assert ours.loss == pytest.approx(theirs.loss, rel=0.05)  # the same model, other rows
    for r in results:
        assert 0 <= r.padding_share < 1 and r.supervised_tokens_per_s < r.real_tokens_per_s
        assert 0 < r.peak_beyond_weights_gb < r.peak_memory_gb < r.process_memory_gb
        assert 0 < r.sgemm_share < 1 and r.seconds_per_update < r.seconds_to_first_step
    ratio = ratios(results)["tiny, mlx-lm"]["supervised_tokens_per_s"]
    assert ratio == ours.supervised_tokens_per_s / theirs.supervised_tokens_per_s
    assert json.loads(json.dumps(report(results)))["results"][1]["trainer"] == "mlx-lm"
    assert "tiny, mlx-lm" in str(ratios_table(results)) and "GB" in str(measured_table(results))
    assert bench_bars(results)._repr_png_().startswith(b"\x89PNG")


def test_an_unknown_workload_and_no_rounds_are_refused() -> None:
    for flags, said in (
        (["--workload", "enorme"], "invalid choice: 'enorme'"),
        (["--rounds", "0"], "at least 1"),
    ):
        done = subprocess.run([sys.executable, BENCH, *flags], capture_output=True, text=True)
        assert done.returncode == 2 and said in done.stderr


def test_a_workload_of_rows_has_as_many_and_one_of_windows_has_texts_that_fill_them(tmp_path: Path) -> None:
    write_rows(WORKLOADS["rows-1000"], tmp_path)
    assert len(set((tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines())) == 1000
    tokenizer = load_base(Config()).tokenizer
    for tokens in (512, 4096):
        write_rows(WORKLOADS[f"window-{tokens}"], tmp_path)
        rows = [
            json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert all(len(tokenizer.encode(row["text"])) >= tokens for row in rows)
        assert len(rows) >= 3 * WORKLOADS[f"window-{tokens}"].settings["batch_size"]
