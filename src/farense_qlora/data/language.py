"""Small helpers of European Portuguese: articles, contractions, plurals, lists."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..text import counted

CONTRACTIONS = {
    "": {"o": "o", "a": "a", "os": "os", "as": "as"},
    "de": {"o": "do", "a": "da", "os": "dos", "as": "das"},
    "em": {"o": "no", "a": "na", "os": "nos", "as": "nas"},
    "a": {"o": "ao", "a": "à", "os": "aos", "as": "às"},
    "por": {"o": "pelo", "a": "pela", "os": "pelos", "as": "pelas"},
    "com": {"o": "com o", "a": "com a", "os": "com os", "as": "com as"},
}

# The article goes by the first word of a noun, by a word inside it, or by the whole name.
HEADS = {"Campeonato": "o", "Grupo": "o", "Taça": "a", "Zona": "a", "Série": "a", "final": "a", "fase": "a",
         "liguilha": "a", "oitavos": "os", "quartos": "os", "meias-finais": "as"}  # fmt: skip
INSIDE = {"Divisão": "a", "Liga": "a", "eliminatória": "a", "fase": "a", "avos": "os"}
FEMININE = {"Sanjoanense", "Ovarense", "Oliveirense", "União de Leiria", "CUF", "B SAD", "Bulgária",
            "Hungria", "Argentina", "Alemanha", "Suécia", "Beira Alta", "Beira Baixa", "Estremadura", "águia",
            "raposa", "pantera"}  # fmt: skip
FEMININE_BEGINNINGS = ("Académica", "Associação", "Naval")
BARE = {"Portugal", "Espanha", "Inglaterra", "Marrocos", "Angola", "França", "Itália", "Trás-os-Montes"}


def article(noun: str) -> str:
    """The definite article of a competition, round, country, region or club."""
    words = noun.split()
    if words and words[0] in HEADS:
        return HEADS[words[0]]
    for word in words:
        if word in INSIDE:
            return INSIDE[word]
    return "a" if noun in FEMININE or noun.startswith(FEMININE_BEGINNINGS) else "o"


@lru_cache(maxsize=16384)
def with_article(noun: str, preposition: str = "") -> str:
    """`("I Divisão", "em")` -> "na I Divisão"; a country that takes no article gets the bare preposition."""
    contraction = CONTRACTIONS[preposition]
    if noun in BARE:
        return f"{preposition} {noun}".strip()
    return f"{contraction[article(noun)]} {noun}"


def sentence(text: str) -> str:
    """`text` with a full stop, unless it ends in an abbreviation's."""
    return text if text.endswith(".") else f"{text}."


def listed(items: Sequence[str]) -> str:
    """`["a", "b", "c"]` -> "a, b e c"."""
    return " e ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def record(wins: int, draws: int, losses: int) -> str:
    """`(3, 0, 1)` -> "3 vitórias e 1 derrota"; nothing when nothing was played."""
    parts = ((wins, "vitória"), (draws, "empate"), (losses, "derrota"))
    return listed([counted(number, word) for number, word in parts if number])


@lru_cache(maxsize=4096)
def competition(name: str) -> str:
    """`"AF Algarve 2.ª Divisão"` -> "2.ª Divisão da AF Algarve"; other names stay as they are."""
    return re.sub(r"^(AF .+?) (\S+)(?: Divisão)?$", r"\2 Divisão da \1", name)


def season_of(year: int) -> str:
    """`1994` -> "1994-95": the season that begins in that year."""
    return f"{year}-{(year + 1) % 100:02d}"


def without_brackets(text: str) -> str:
    """`text` without what stands in round brackets; what is not closed goes up to the end."""
    return re.sub(r"\s*\([^)]*\)?", "", text).strip()


def opponent_name(display: str) -> str:
    """The name as it follows an article: without explanations and without the article of «O Elvas»."""
    return without_brackets(display).removeprefix("O ")


@dataclass(frozen=True)
class Club:
    """The club that questions are about; `gender` is the article of its name, `official` its name in full
    and `nickname` what its players are called."""

    name: str
    gender: str
    official: str = ""
    nickname: str = ""

    @cached_property
    def forms(self) -> dict[str, str]:
        """The club with each preposition, by the contraction that a wording has for it: {o}, {do}, {ao}; the
        same with its initials, {o_sc}, and its players, {os}."""
        before = self.official.removesuffix(self.name).split() if self.official != self.name else []
        initials = "".join(word[0] for word in before if word[0].isupper())
        short = f"{initials} {self.name}".strip()
        nickname = self.nickname[:1].lower() + self.nickname[1:]
        players = nickname or f"jogadores {CONTRACTIONS['de'][self.gender]} {self.name}"
        many = "as" if players.split()[0].endswith("as") else "os"
        forms = {}
        for row in CONTRACTIONS.values():
            mark = row["o"].replace(" ", "_")
            forms[mark] = f"{row[self.gender]} {self.name}"
            forms[f"{mark}_sc"] = f"{row['o' if initials else self.gender]} {short}"
            forms[f"{mark}s"] = f"{row[many]} {players}"
        feminine = self.gender == "a"
        return {**forms, "vogal": self.gender, "a_f": "a" * feminine, "ao_f": "ã" if feminine else "ão"}
