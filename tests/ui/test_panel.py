"""The panel says what the config says: same defaults, same bounds, same words."""

import pytest

from farense_qlora.config import PROFILES, Config
from farense_qlora.errors import UserError
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


def test_a_bad_value_is_said_at_once_and_refused() -> None:
    made = Panel("mini")
    made._fields["rank"].value = "0"
    assert "rank" in made._message.value and "pelo menos 1" in made._message.value
    with pytest.raises(UserError, match="rank"):
        _ = made.config
    made._fields["rank"].value = "8"
    assert made._message.value == "" and made.config.rank == 8


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
