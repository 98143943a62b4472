"""What a sentence looks like as the last line of a cell."""

from farense_qlora.text import Sentence, counted


def test_a_sentence_stands_in_a_cell_as_text_that_wraps_between_words() -> None:
    said = Sentence("o treino «a<b» chama-se agora «c»")
    assert repr(said) == said and said._repr_html_() == "<p>o treino «a&lt;b» chama-se agora «c»</p>"


def test_one_thing_is_not_said_in_the_plural() -> None:
    assert (counted(1, "linha"), counted(0, "linha"), counted(2, "linha")) == (
        "1 linha",
        "0 linhas",
        "2 linhas",
    )
    assert (counted(1, "atualização"), counted(3, "atualização")) == ("1 atualização", "3 atualizações")
    assert counted(2, "repetição retirada") == "2 repetições retiradas"
