"""Runs are compared on the same questions, in pairs, and what makes them unlike is said."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import Command
from contenders import contender

from farense_qlora.answers.compare import compare_runs, differences, pair
from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base
from farense_qlora.training.run import Run


def test_lora_and_qlora_differ_in_the_bits_alone() -> None:
    lora, qlora = pair(Config.of("mini", epochs=1))
    assert (lora.bits, qlora.bits) == (16, 4)
    assert lora.changed(bits=4) == qlora


def test_differences_are_paired_and_say_whether_they_are_clear() -> None:
    found = differences([contender("base", 10, 2.0), contender("LoRA", 30, 1.0), contender("QLoRA", 30, 1.0)])
    by = {(d.measure, d.one, d.other): d for d in found}
    assert by["certas: novas", "LoRA", "base"].value == 0.5
    assert by["certas: novas", "LoRA", "base"].clear
    same = by["certas: novas", "QLoRA", "LoRA"]
    assert (same.value, same.interval, same.clear) == (0.0, (0.0, 0.0), False)
    ratio = by["perplexidade", "LoRA", "base"]
    assert ratio.value == pytest.approx(0.3679, abs=1e-3) and ratio.clear


def test_the_16_bit_miniature_is_the_4_bit_one_dequantized() -> None:
    tokens = mx.arange(24)[None]
    four, sixteen = (load_base(Config(model="mini", bits=bits)).model(tokens) for bits in (4, 16))
    assert mx.abs(four - sixteen).max() < 1e-3


def test_compare_trains_both_and_leaves_a_whole_report(
    farense: Command, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = farense(
        "compare", "--model", tiny_model, "--max-steps", 3, "--batch-size", 8, "--to", tmp_path, "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [c["name"] for c in said["contenders"]] == ["base", "LoRA", "QLoRA"]
    assert [c["bits"] for c in said["contenders"]] == [4, 16, 4]
    assert [c["training"] and c["training"]["updates"] for c in said["contenders"]] == [None, 3, 3]
    assert said["notes"] == []  # same data, order and seed
    assert all(c["answer_tokens_per_s"] > 0 and c["tokens"]["perplexity"] > 1 for c in said["contenders"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "compare.html", "compare.json", "compare.md", "compare.png",
    }  # fmt: skip
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "LoRA face a base" in page and "http" not in page
    assert "<td>perplexidade na validação</td>" in page

    again = farense("compare", "--runs", *said["runs"], "--to", tmp_path, "--json")
    assert [c["tokens"] for c in json.loads(again.stdout)["contenders"]] == [
        c["tokens"] for c in said["contenders"]
    ]


def test_runs_of_other_models_are_not_compared(
    farense: Command, trained: Path, home: Path, tiny_model: Path
) -> None:
    other = trained.with_name("outro-modelo")
    shutil.copytree(trained, other)
    config = Config.read(other / "config.json").changed(model="mini")
    config.write(other / "config.json")
    with pytest.raises(UserError, match="não se comparam: model é mini num"):
        compare_runs([Run(trained), Run(other)])
    shutil.rmtree(other)
    done = farense("compare", "--runs", "decorado", "--epochs", 2)
    assert (done.returncode, done.stderr) == (2, "erro: com --runs não se treina nada: tire --epochs\n")


def test_what_makes_runs_unlike_is_noted(trained: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from farense_qlora.answers import compare as module
    from farense_qlora.data import load, sources

    for part in (load, sources):
        monkeypatch.setattr(part, "HOME", home)
    other = trained.with_name("outra-semente")
    shutil.copytree(trained, other, symlinks=True)
    Config.read(other / "config.json").changed(seed=7).write(other / "config.json")
    told: list[tuple[str, int, int]] = []
    found = module.compare_runs([Run(trained), Run(other)], lambda *what: told.append(what))
    shutil.rmtree(other)
    assert [c.name for c in found.contenders] == ["base", "decorado", "outra-semente"]
    assert "os treinos diferem em seed: 0, 7" in found.notes
    assert told[0] == ("base", 0, 10) and told[-1] == ("outra-semente", 10, 10)
    best = found.contenders[1]
    assert best.evaluations[0].exact_match == 1.0 and best.tokens.accuracy > 0.95
    assert any(d.one == "decorado" and d.measure.startswith("certas") and d.clear for d in found.differences)
