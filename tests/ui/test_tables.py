"""Tables read the same in a notebook and in a terminal, in Portuguese, and let no markup in."""

from ui_events import events

from farense_qlora.config import Config
from farense_qlora.data.rows import Row
from farense_qlora.model.machine import machine
from farense_qlora.training.gap import gap
from farense_qlora.ui.tables import (
    Table,
    config_table,
    decimal,
    gap_table,
    kinds_table,
    machine_table,
    rows_table,
)  # fmt: skip


def test_text_from_data_cannot_become_markup() -> None:
    html = Table(("a",), (("<script>x</script>",),))._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_every_setting_is_shown_with_what_it_does() -> None:
    table = config_table(Config.of("mini", max_steps=None, learning_rate=2e-4))
    assert len(table.rows) == len(Config.model_fields)
    shown = {row[0]: row[1] for row in table.rows}
    assert shown["Taxa de aprendizagem"] == "0,0002"
    assert shown["Máximo de passos"] == "sem limite" and shown["Módulos"] == "todos"


def test_rows_are_counted_by_kind() -> None:
    rows = [Row(({"role": "user", "content": "P?"}, {"role": "assistant", "content": "R."}), kind="facto")]
    assert kinds_table({"treino": rows * 3}).rows == (("um facto", "3"), ("total", "3"))
    assert rows_table(rows).rows == (("um facto", "P?", "R."),)


def test_rows_that_are_no_conversation_are_counted_and_not_shown() -> None:
    turns = ({"role": "system", "content": "S"}, {"role": "user", "content": "P?"})
    rows = [Row(text="solto"), Row((*turns, {"role": "assistant", "content": "R."}))]
    assert rows_table(rows).rows == (("", "P?", "R."),) and rows_table(rows[:1]).rows == ()


def test_numbers_are_written_as_in_portugal() -> None:
    assert decimal(1234.5, 1) == "1\u202f234,5"


def test_the_machine_and_the_verdict_fit_in_tables() -> None:
    assert "GFLOP/s" in repr(machine_table(machine()))
    assert "bom" in repr(gap_table(gap(events())))
    assert "antes da primeira avaliação" in repr(gap_table(gap(events()[:5])))
