"""An exact finder of texts that ask nearly the same, to hold the questions against."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from farense_qlora.data.duplicates import numbers_and_names


def near_duplicates(first: Sequence[str], second: Sequence[str], alike: float = 0.7) -> list[tuple[int, int]]:
    """The pairs (i, j) for which `first[i]` and `second[j]` name the same numbers and names, and the overlap
    (Jaccard) of their words and pairs of words is at least `alike`."""
    by_key = defaultdict(list)
    for j, text in enumerate(second):
        by_key[numbers_and_names(text)].append((j, shingles(text)))
    pairs = []
    for i, text in enumerate(first):
        mine = shingles(text)
        for j, other in by_key[numbers_and_names(text)]:
            if len(mine & other) >= alike * len(mine | other):
                pairs.append((i, j))
    return pairs


def shingles(text: str) -> frozenset[str]:
    plain = unicodedata.normalize("NFKD", text.casefold())
    words = re.findall(r"[^\W_]+", "".join(letter for letter in plain if not unicodedata.combining(letter)))
    return frozenset([*words, *(f"{one} {two}" for one, two in pairwise(words))])
