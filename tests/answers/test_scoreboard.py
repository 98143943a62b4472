"""Evaluations and comparisons are aligned tables in Portuguese, with a column for each contender."""

import re

from contenders import contender

from farense_qlora.answers.compare import Change, Comparison, compare, differences
from farense_qlora.answers.evaluate import judge, summary
from farense_qlora.answers.scoreboard import (
    changes_text,
    comparison_markdown,
    difference_cells,
    evaluation_text,
)
from farense_qlora.data.rows import Row
from farense_qlora.text import percent


def row(question: str, expected: str, kind: str = "", table: str = "") -> Row:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": expected})
    return Row(messages=turns, kind=kind, table=table)


def test_base_and_adapter_stand_side_by_side() -> None:
    before = [summary("novas", [judge(row("A?", "Foi Paco."), "Era um."), judge(row("B?", "Sim."), "Não.")])]
    after = [summary("novas", [judge(row("A?", "Foi Paco."), "Foi Paco."), judge(row("B?", "Sim."), "Não.")])]
    changes = compare(before, after)
    assert changes == [Change("novas", 2, 0.0, 0.5, 0.0, 0.5)]
    assert re.fullmatch(r"novas +2 +0,0 % +50,0 % +0,0 % +50,0 %", changes_text(changes).splitlines()[-1])


def test_tables_are_aligned_and_portuguese() -> None:
    evaluation = summary("novas", [judge(row("A?", "Sim.", "sim-nao", "cups"), "Sim.")])
    lines = evaluation_text(evaluation).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["perguntas", "certas", "F1"]
    assert lines[2].endswith("100,0 % [100,0; 100,0]  100,0 % [100,0; 100,0]")
    assert percent(0.6251) == "62,5 %"


def test_the_markdown_has_a_column_for_each_contender() -> None:
    contenders = (contender("base", 10, 2.0), contender("LoRA", 30, 1.0))
    text = comparison_markdown(Comparison("mini", contenders, differences(contenders), ("uma nota",)))
    assert "|  | base | LoRA |" in text and "| novas: certas | 25,0 % [" in text and "- uma nota" in text
    assert len({line.count("|") for line in text.split("\n\n")[0].splitlines()}) == 1


def test_a_difference_has_its_sign_its_unit_and_its_interval() -> None:
    found = differences([contender("base", 10, 2.0), contender("LoRA", 30, 1.0)])
    (more,) = [difference for difference in found if difference.measure == "certas: novas"]
    assert difference_cells(more)[2].startswith("+50,0 p.p. [+")
