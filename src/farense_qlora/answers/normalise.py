"""When two Portuguese answers say the same: text reduced to its bare tokens, and the overlap of two texts."""

import re
import unicodedata
from collections import Counter

_NUMBERS = re.findall(
    r"\w+",
    "zero um dois tres quatro cinco seis sete oito nove dez onze doze treze catorze quinze dezasseis "
    "dezassete dezoito dezanove vinte",
)
_ORDINALS = ("primeir", "segund", "terceir", "quart", "quint", "sext", "setim", "oitav", "non", "decim")
_WORDS = {
    **{word: str(number) for number, word in enumerate(_NUMBERS)},
    **{stem + end: str(number) for number, stem in enumerate(_ORDINALS, start=1) for end in "oa"},
    **{"uma": "1", "duas": "2", "quatorze": "14"},
    **{"os": "", "as": "", "ao": "", "aos": ""},
}
for _article in ("o", "a", "os", "as"):
    _WORDS |= {f"d{_article}": "de", f"n{_article}": "em", f"pel{_article}": "por"}
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[.\u00a0\u202f]\d{3})+(?![\d.,]\d)")
# «o» and «a» before a word, small or at the start of a sentence; the A of «Série A» is a name.
_ARTICLE = re.compile(r"(?:\b[oa]\b|(?:^|[.!?:]\s)\W*[OA]\b)(?!\s*(?:[,.;:!?)]|$))")


def normalise(text: str) -> str:
    """What `text` says, without how it is written.

    Case, accents and punctuation go; so do the definite articles, also inside contractions («do» = «de»);
    ordinals up to the tenth and numbers up to twenty become digits («quinto» = «5.º» = «5»); a number below
    zero keeps its sign («-5» = «menos 5»); thousands lose their separator and a season keeps two digits of
    its second year («1989/1990» = «1989-90»).
    """
    text = re.sub(r"(?:^|(?<=[^\d\s]\s))[-−](?=\d)", "menos ", text.strip())
    text = re.sub(r"(\d)\s*\.?\s*[ºª°]", r"\1 ", text)
    text = re.sub(r"(\d{4})\s*[-‐–—/]\s*(?:\d{2})?(\d{2})(?!\d)", r"\1 \2 ", text)
    text = _THOUSANDS.sub(lambda number: re.sub(r"\D", "", number.group()), text)
    letters = unicodedata.normalize("NFKD", text)
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    text = _ARTICLE.sub(" ", text).casefold()
    words = (_WORDS.get(word, word) for word in re.findall(r"[^\W_]+", text))
    return " ".join(word for word in words if word)


def token_f1(expected: str, got: str) -> float:
    """The F1 of the words that two answers share after `normalise`: 1 for the same words, 0 for none."""
    wanted, given = Counter(normalise(expected).split()), Counter(normalise(got).split())
    shared = (wanted & given).total()
    return 2 * shared / (wanted.total() + given.total()) if shared else 0.0


def says(got: str, sentence: str, asked: str, short: str) -> bool:
    """Whether the answer `got` to the question `asked` says what the true `sentence` says, whose bare answer
    is `short`: every number, season and name of this, and none that neither they nor the question have."""
    told, bare, words = facts(sentence), normalise(short).split(), normalise(got).split()
    needed = (told & {*bare}) or {word for word in bare if len(word) > 2}
    known = told | {*bare, *normalise(asked).split()}
    yes_or_no = {"sim", "nao"} & {*bare[:1]}
    agrees = needed <= {*words} and facts(got) <= known and yes_or_no <= {*words[:1]}
    return bool(needed) and agrees


def facts(text: str) -> set[str]:
    """The numbers in `text`, and the words in it with a capital that do not begin a sentence, normalised."""
    names = re.findall(r"(?<![.!?:]\s)(?<=\s)[A-ZÀ-Ý][\w-]*", text)
    return {word for name in names for word in normalise(name).split()} | {
        word for word in normalise(text).split() if word.isdecimal()
    }


def refuses(text: str) -> bool:
    """Whether an answer begins by saying that it is not known."""
    return normalise(text).startswith("nao sei")
