"""Seasons are three tokens, and no text is lost."""

from build import Recipe, texts
from tokenizer import train_tokenizer


def test_a_season_is_three_tokens_and_text_survives_the_tokenizer() -> None:
    tokenizer = train_tokenizer(texts(Recipe(clubs_for_tokenizer=1)), 900)
    assert [tokenizer.decode([token]) for token in tokenizer.encode(" 1994-95")] == [" 19", "94", "-95"]
    for text in ("Ficou em 5.º lugar na II Divisão, com 1 golo; à 2.ª, não!", "日本 «aspas» 1 234,5"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
