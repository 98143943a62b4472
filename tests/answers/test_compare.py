"""Models are compared in pairs, on the same questions; it is said what makes runs unlike."""

import json
import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from conftest import Command
from contenders import comparison, contender

from farense_qlora.answers.compare import compare_runs, differences
from farense_qlora.answers.evaluate import Evaluation, answered, compare, examples, judge
from farense_qlora.config import Config
from farense_qlora.data.rows import Row
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base
from farense_qlora.training.run import Run


def evaluation(*said: tuple[str, str], kind: str = "") -> Evaluation:
    """What comes of the `said` expected and given answers to the same question."""
    judged = []
    for expected, given in said:
        turns = ({"role": "user", "content": "E a seguir?"}, {"role": "assistant", "content": expected})
        judged.append(judge(Row(messages=turns, kind=kind), given))
    return Evaluation(sets=(answered("novas", judged),))


def test_base_and_adapter_stand_side_by_side() -> None:
    before = evaluation(("Foi Paco.", "Era um."), ("Sim.", "Não."), kind="facto")
    after = evaluation(("Foi Paco.", "Foi Paco."), ("Sim.", "Não."), kind="facto")
    table = compare(before, after)
    assert table.to_numpy().tolist() == [["novas", 2, 0, 0.5, 0, 0.5], ["– um facto", 2, 0, 0.5, 0, 0.5]]
    assert re.fullmatch(r"novas +2 +0,0 % +50,0 % +0,0 % +50,0 %", repr(table).splitlines()[2])
    assert "87,5 %" not in table._repr_html_() and "50,0 %" in table._repr_html_()
    assert re.fullmatch(r"novas +2 +— +50,0 % +— +50,0 %", repr(compare(None, after)).splitlines()[2])


def test_answers_to_the_same_words_are_told_apart() -> None:
    before = evaluation(("5.º", "1.º"), ("6.º", "6.º"), ("7.º", "1.º"))
    after = evaluation(("5.º", "2.º"), ("6.º", "6.º"), ("7.º", "7.º"))
    shown = examples(before, after)
    assert [row[1:] for row in shown.cells()] == [["5.º", "✗ 1.º", "✗ 2.º"], ["7.º", "✗ 1.º", "✓ 7.º"]]
    nothing = Evaluation(sets=())  # of bare texts
    assert len(examples(nothing, nothing)) == len(compare(nothing, nothing)) == 0


def test_differences_are_paired_and_say_whether_they_are_clear() -> None:
    entries = (contender("base", 10, 2.0), contender("LoRA", 30, 1.0), contender("QLoRA", 30, 1.0))
    found = differences(entries)
    by = {(d.measure, d.one, d.other): d for d in found}
    assert by["certas: novas", "LoRA", "base"].value == 0.5
    assert by["certas: novas", "LoRA", "base"].clear
    assert by["certas: novas", "LoRA", "base"].cells()[2].startswith("+50,0 p.p. [+")
    same = by["certas: novas", "QLoRA", "LoRA"]
    assert (same.value, same.interval, same.clear) == (0.0, (0.0, 0.0), False)
    ratio = by["perplexidade", "LoRA", "base"]
    assert ratio.value == pytest.approx(0.3679, abs=1e-3) and ratio.clear
    assert ratio.cells()[2].startswith("×0,368 [×0,")


def test_a_comparison_is_written_as_json_and_as_tables_with_a_column_for_each_entry(tmp_path: Path) -> None:
    entries = (contender("base", 10, 2.0), contender("LoRA", 30, 1.0))
    comparison(*entries, notes=("uma nota",)).save(tmp_path)
    text = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "|  | base | LoRA |" in text and "| novas: certas | 25,0 % [" in text and "- uma nota" in text
    assert len({line.count("|") for line in text.split("\n\n")[0].splitlines()}) == 1
    said = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    assert said.keys() == {"model", "contenders", "differences", "notes"}
    assert said["contenders"][0].keys() == {
        "name", "bits", "training", "base_gb", "base_disk_bytes", "answer_tokens_per_s", "tokens",
        "general", "evaluations",
    }  # fmt: skip
    assert [difference["measure"] for difference in said["differences"]] == [
        "certas: novas", "F1: novas", "perplexidade", "perplexidade em português geral",
    ]  # fmt: skip
    assert said["differences"][0].keys() == {"measure", "one", "other", "value", "interval"}


def test_the_16_bit_miniature_is_the_4_bit_one_dequantized() -> None:
    tokens = mx.arange(24)[None]
    four, sixteen = (load_base(Config(model="mini", bits=bits)).model(tokens) for bits in (4, 16))
    assert mx.abs(four - sixteen).max() < 1e-3


def test_compare_trains_both_and_leaves_a_whole_report(
    farense: Command, home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = farense(
        "compare",
        "--model",
        tiny_model,
        "--max-steps",
        3,
        "--epochs",
        3,
        "--batch-size",
        8,
        "--to",
        tmp_path,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    lora, qlora = (Run(home / "checkpoints_qlora" / name).config for name in said["runs"])
    assert (lora.bits, qlora.bits) == (16, 4) and lora.changed(bits=4) == qlora
    assert [c["name"] for c in said["contenders"]] == ["base", "LoRA", "QLoRA"]
    assert [c["bits"] for c in said["contenders"]] == [4, 16, 4]
    assert [c["training"] and c["training"]["updates"] for c in said["contenders"]] == [None, 3, 3]
    assert said["notes"] == []  # same data, order and seed
    assert all(c["answer_tokens_per_s"] > 0 and c["tokens"]["perplexity"] > 1 for c in said["contenders"])
    assert {path.name for path in tmp_path.iterdir()} == {
        "compare.html", "compare.json", "compare.md", "compare.png",
    }  # fmt: skip
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "LoRA face à base" in page and "http" not in page
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
    assert found.names == ["base", "decorado", "outra-semente"]
    assert "os treinos diferem em seed: 0, 7" in found.notes
    assert told[0] == ("base", 0, 18) and told[-1] == ("outra-semente", 18, 18)
    best = found.contenders[1]
    assert best.evaluations[0].exact_match == 1.0 and best.tokens.accuracy > 0.95
    assert any(d.one == "decorado" and d.measure.startswith("certas") and d.clear for d in found.pairs)
    assert "100,0 % [100,0; 100,0]" in repr(found.measures) and len(found.answers) == 18
