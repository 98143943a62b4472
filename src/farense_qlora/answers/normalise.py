"""When two Portuguese answers say the same: text reduced to its bare tokens, and the overlap of two texts."""

import re
import unicodedata
from collections import Counter

_ORDINALS = ("primeir", "segund", "terceir", "quart", "quint", "sext", "sétim", "oitav", "non", "décim")
_CARDINALS = (
    "zero",
    "um",
    "dois",
    "três",
    "quatro",
    "cinco",
    "seis",
    "sete",
    "oito",
    "nove",
    "dez",
    "onze",
    "doze",
    "treze",
    "catorze",
    "quinze",
    "dezasseis",
    "dezassete",
    "dezoito",
    "dezanove",
    "vinte",
)
_TENS = ("vinte", "trinta", "quarenta", "cinquenta", "sessenta", "setenta", "oitenta", "noventa")
_OTHER_WORDS = {
    **{word: str(10 * ten) for ten, word in enumerate(_TENS, start=2)},
    "cem": "100",
    "uma": "1",
    "duas": "2",
    "quatorze": "14",
    "o": "",
    "a": "",
    "os": "",
    "as": "",
    "do": "de",
    "da": "de",
    "dos": "de",
    "das": "de",
    "no": "em",
    "na": "em",
    "nos": "em",
    "nas": "em",
    "pelo": "por",
    "pela": "por",
    "pelos": "por",
    "pelas": "por",
    "ao": "",
    "aos": "",
}


def _plain(text: str) -> str:
    """Lower case without accents; the ordinal signs become the letters o and a."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


_WORDS = {
    **{_plain(word): str(number) for number, word in enumerate(_CARDINALS)},
    **{_plain(stem) + end: str(n) for n, stem in enumerate(_ORDINALS, start=1) for end in "oa"},
    **_OTHER_WORDS,
}
# «vinte e um», «décimo primeiro»
_PHRASES = {
    **{f"{word} e {unit}": str(10 * ten + n) for ten, word in enumerate(_TENS, start=2)
       for n, unit in [*enumerate(map(_plain, _CARDINALS[1:10]), start=1), (1, "uma"), (2, "duas")]},
    **{f"decim{end} {_plain(stem)}{end}": str(10 + n) for n, stem in enumerate(_ORDINALS[:9], start=1)
       for end in "oa"},
}  # fmt: skip
_PHRASE = re.compile(rf"\b(?:{'|'.join(_PHRASES)})\b")


def normalise(text: str) -> str:
    """What `text` says, without how it is written.

    Case, accents and punctuation go; so do the definite articles, also inside contractions («do» = «de»);
    ordinals up to the nineteenth and numbers up to a hundred become digits («quinto» = «5.º» = «5»);
    thousands lose their separator and a season keeps two digits of its second year («1989/1990» = «1989-90»).
    """
    text = re.sub(r"(\d)\s*\.?\s*[ºª°]", r"\1 ", text)
    text = re.sub(r"(\d{4})\s*[-‐–—/]\s*(?:\d{2})?(\d{2})(?!\d)", r"\1 \2 ", text)
    text = re.sub(r"(?<![\d.,])\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?![\d.,]\d)", _joined, text)
    text = _PHRASE.sub(lambda phrase: _PHRASES[phrase.group()], _plain(text))
    words = re.findall(r"[^\W_]+", text)
    return " ".join(word for word in (_WORDS.get(word, word) for word in words) if word)


def token_f1(expected: str, got: str) -> float:
    """The F1 of the words that two answers share after `normalise`: 1 for the same words, 0 for none."""
    wanted, given = Counter(normalise(expected).split()), Counter(normalise(got).split())
    shared = (wanted & given).total()
    return 2 * shared / (wanted.total() + given.total()) if shared else 0.0


def _joined(number: re.Match[str]) -> str:
    return re.sub(r"\D", "", number.group())
