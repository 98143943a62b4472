"""The panel says what the config says: same defaults, same bounds, same words."""

import os
import re
from itertools import product
from pathlib import Path

import pytest
from tiny import PEOPLE, write_rows
from ui_events import write_run

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_tokenizer
from farense_qlora.profiles import PROFILES
from farense_qlora.training import run as run_module
from farense_qlora.training.events import Merged
from farense_qlora.ui import panel as panel_module
from farense_qlora.ui.panel import Panel, panel


@pytest.mark.parametrize("profile", PROFILES)
def test_untouched_it_gives_the_profile(profile: str) -> None:
    assert Panel(profile).config == Config.of(profile)


def test_the_environment_chooses_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARENSE_PROFILE", "mistral-7b")
    assert panel().config.profile == "mistral-7b"
    monkeypatch.setenv("FARENSE_PROFILE", "gigante")
    with pytest.raises(UserError, match="gigante"):
        panel()


def test_settings_come_from_the_environment_and_stay_through_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARENSE_PROFILE", "mini")
    monkeypatch.setenv("FARENSE_MAX_STEPS", "4")
    monkeypatch.setenv("FARENSE_PACKING", "false")
    made = panel(bits=16, rank=5)
    wanted = Config.of("mini", bits=16, rank=5, max_steps=4, packing=False)
    assert made.config == wanted
    made._fields["rank"].value = "7"
    made.reset()
    assert made.config == wanted
    monkeypatch.setenv("FARENSE_BITS", "4")
    assert panel(bits=16).config.bits == 4
    monkeypatch.setenv("FARENSE_EPOCHS", "muitas")
    with pytest.raises(UserError, match="epochs = 'muitas'"):
        panel()


def test_it_opens_with_the_settings_of_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FARENSE_PROFILE", raising=False)
    monkeypatch.setattr(run_module, "RUNS", tmp_path)
    assert panel().config == Config.of("mini")
    last = Config.of("mini", rank=5, epochs=2.5, train_data="meus.jsonl", target_modules=("q_proj",))
    for name, config in (("velho", Config.of("mini", rank=9)), ("novo", last)):
        (tmp_path / name).mkdir()
        config.write(tmp_path / name / "config.json")
        os.utime(tmp_path / name / "config.json", (0, len(list(tmp_path.iterdir()))))
    made = panel()
    assert made.config == last and "«novo»" in made._message.value
    write_run(tmp_path / "junto", [Merged(step=0, time=9.0, runs=("velho", "novo"), weights=(0.5, 0.5))])
    assert panel().config == last
    assert panel(bits=16).config == last.changed(bits=16)
    made.reset()
    assert made.config == Config.of("mini")
    monkeypatch.setenv("FARENSE_PROFILE", "mistral-7b")
    assert panel().config == Config.of("mistral-7b")


def test_a_bad_value_is_said_at_once_and_refused() -> None:
    made = Panel("mini")
    made._fields["rank"].value = "0"
    assert "Rank = " in made._message.value and "pelo menos 1" in made._message.value
    with pytest.raises(UserError, match="rank"):
        _ = made.config
    made._fields["rank"].value = "8"
    assert made._message.value == "" and made.config.rank == 8
    for name, value in product(("rank", "learning_rate", "epochs"), ("nan", "-1", "inf", "oito", "")):
        before, made._fields[name].value = made._fields[name].value, value
        assert "⚠" in made._message.value and "0.0" not in made._message.value, (name, value)
        made._fields[name].value = before
        assert made._message.value == ""


def test_a_bad_value_is_told_by_its_label() -> None:
    made = Panel("mini")
    for name, value in (("learning_rate", "muita"), ("num_layers", "0")):
        before, made._fields[name].value = made._fields[name].value, value
        assert str(Config.model_fields[name].title) in made._message.value and name not in made._message.value
        made._fields[name].value = before


def test_numbers_may_have_a_decimal_comma_and_lists_commas() -> None:
    made = Panel("mini")
    made._fields["learning_rate"].value = "0,001"
    made._fields["target_modules"].value = "q_proj, v_proj"
    made._fields["max_steps"].value = "7"
    assert made.config.learning_rate == 0.001
    assert made.config.target_modules == ("q_proj", "v_proj") and made.config.max_steps == 7


def test_what_is_typed_cannot_become_markup() -> None:
    made = Panel("mini")
    made._fields["rank"].value = "<b>8</b>"
    assert "&lt;b&gt;" in made._message.value and "<b>" not in made._message.value


def test_another_profile_resets_every_value() -> None:
    made = Panel("mini")
    made._fields["rank"].value = "3"
    made._profile.value = "mistral-7b"
    assert made.config == Config.of("mistral-7b")


def test_a_slider_moves_its_field_and_the_other_way_round() -> None:
    made = Panel("mini")
    made._sliders["rank"].value = 24
    assert made._fields["rank"].value == "24" and made.config.rank == 24
    made._fields["epochs"].value = "2,5"
    assert made._sliders["epochs"].value == 2.5
    made._fields["learning_rate"].value = "0,00123"
    assert made.config.learning_rate == 0.00123  # what was typed stays, however the slider rounds
    made._sliders["learning_rate"].value = -4
    assert made.config.learning_rate == 1e-4
    made._fields["batch_size"].value = "1000"  # beyond the slider, within the config's bounds
    assert made.config.batch_size == 1000 and made._sliders["batch_size"].value == 64


def test_a_browser_that_rounds_a_slider_changes_no_setting() -> None:
    made = Panel("mini", epochs=3.25, batch_size=100)
    for name, stop in (("learning_rate", -3.1), ("epochs", 3.5), ("epochs", 3.0), ("batch_size", 64)):
        before = made.config
        made._sliders[name].value = stop
        assert made.config == before
    made._sliders["epochs"].value = 4.0
    made._sliders["learning_rate"].value = -3.55
    assert (made.config.epochs, made.config.learning_rate) == (4.0, 2.8e-4)


def test_every_setting_with_a_slider_stays_within_the_configs_bounds() -> None:
    made = Panel("mini")
    for name, slider in made._sliders.items():
        for end in ("min", "max"):
            slider.value = getattr(slider, end)
            assert made.config and made._message.value == "", (name, made._message.value)


def test_the_costs_follow_what_is_typed_and_warn_when_it_cannot_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Panel("mini")
    before = made._costs.value
    made._sliders["rank"].value = 64
    assert made._costs.value != before and "não cabe" not in made._costs.value
    monkeypatch.setattr(panel_module, "memory_limit", lambda: 10**8)
    made = Panel("mini")
    assert "não cabe" in made._costs.value


def test_the_costs_say_what_is_to_be_downloaded_and_where_the_time_is_measured() -> None:
    made = Panel("mini")
    assert "Por descarregar" not in made._costs.value
    made._profile.value = "mistral-7b"
    assert re.search(r"Por descarregar</t[dh]>\s*<td>4,08 GB \(no disco há .+ livres\)", made._costs.value)
    assert "mede-se antes do treino, com fq.fit(config)" in made._costs.value


def test_it_shows_the_computers_that_train_together(tmp_path: Path) -> None:
    file = tmp_path / "hosts.json"
    file.write_text('[{"ssh": "mac1", "ips": ["10.0.0.1"]}, {"ssh": "mac2", "ips": ["10.0.0.2"]}]')
    made = Panel("mini", hosts=str(file))
    assert "mac1, mac2" in made._costs.value and "Tempo de treino, num só" in made._costs.value
    made._fields["hosts"].value = "nenhures.json"
    assert "não consigo ler os computadores" in made._message.value


def test_the_updates_are_about_so_many_until_the_rows_have_been_tokenized(tmp_path: Path) -> None:
    made = Panel("mini", train_data=str(write_rows(tmp_path / "rows.jsonl", PEOPLE)))
    said = r"Atualizações ao todo</t[dh]>\s*<td>(cerca de )?\d+<"
    assert re.search(said, made._costs.value)[1]
    load_data(made.config, load_tokenizer(made.config))
    made.reset()
    assert re.search(said, made._costs.value)[1] is None


def test_the_costs_stand_on_the_left_in_front_ends_that_align_tables_to_the_right() -> None:
    costs = Panel("mini")._costs.value
    assert costs.count("<table class=fq>") == 1
    assert re.search(r"table\.fq td, table\.fq th \{text-align: left !important", costs)
    assert "<td>" in costs and "<td " not in costs  # none that is a number, which stands on the right


def test_settings_are_saved_loaded_and_reset(tmp_path: Path) -> None:
    made, other = Panel("mini"), Panel("mini")
    made._file.value = other._file.value = str(tmp_path / "minhas.json")
    made._fields["rank"].value = "5"
    made.save()
    other.load()
    assert other.config == made.config and other.config.rank == 5
    other.reset()
    assert other.config == Config.of("mini")
    other._file.value = str(tmp_path / "nada.json")
    (load,) = [button for button in other._buttons().children if button.description == "Carregar definições"]
    load.click()
    assert "nada.json" in other._message.value


def test_settings_are_saved_to_a_new_folder_and_never_to_what_is_no_folder(tmp_path: Path) -> None:
    made = Panel("mini", rank=5)
    made._file.value = str(tmp_path / "nova" / "minhas.json")
    made.save()
    assert Config.read(tmp_path / "nova" / "minhas.json") == made.config
    (save,) = [button for button in made._buttons().children if button.description == "Guardar definições"]
    save.click()
    assert made._message.value == f"definições guardadas em {made._file.value}"
    made._file.value = str(tmp_path / "nova" / "minhas.json" / "outras.json")
    with pytest.raises(UserError, match=r"não consigo escrever em .*outras\.json"):
        made.save()


def test_what_suits_the_computer_is_one_button_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel_module, "on_cpu", lambda: False)
    monkeypatch.setattr(panel_module, "memory_bytes", lambda: 16 * 2**30)
    made = Panel("mini")
    button, takes = made._offer()
    assert button.description == "Usar mistral-7b"
    free, time = r"\(no disco há .+ GB livres\)", "Atualizações ao todo: cerca de .*; Tempo de treino: "
    assert re.search(f"descarregar: 4,08 GB {free}; Memória máxima: cerca de 5,.. GB; {time}", takes.value)
    button.click()
    assert made.config == Config.of("mistral-7b") and made._offer() == []
    monkeypatch.setattr(panel_module, "on_cpu", lambda: True)
    assert Panel("mini")._offer() == []
