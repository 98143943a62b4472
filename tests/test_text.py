"""What a sentence looks like as the last line of a cell."""

from farense_qlora.text import Sentence


def test_a_sentence_stands_in_a_cell_as_text_that_wraps_between_words() -> None:
    said = Sentence("o treino «a<b» chama-se agora «c»")
    assert repr(said) == said and said._repr_html_() == "<p>o treino «a&lt;b» chama-se agora «c»</p>"
