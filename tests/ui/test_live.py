"""What `watch` shows is a function of the events."""

from ui_events import events

from farense_qlora.ui.live import duration, figures, state


def test_the_numbers_beside_the_curves_are_those_of_the_last_events() -> None:
    shown = figures(events()[:42])
    assert shown["passo"].endswith("/ 60") and shown["tokens/s"] == "600"
    assert shown["memória máxima"] == "250,0 MB"
    assert shown["tempo que falta"] == duration((60 - int(shown["passo"].split(" ")[0])) * 0.5)


def test_nothing_is_shown_before_the_first_update() -> None:
    assert figures(events()[:1]) == {}
    assert "<img" in state(events()[:1])


def test_the_outcome_stands_under_the_last_picture() -> None:
    assert "Treino terminado, em 0 min 31 s. Melhor perda de validação: 0,500 (passo 60)." in state(events())
    assert "parado a pedido" in state(events(30, "stopped"))
