"""Rows that say the same thing twice, within the training data or across the split, found by line.

Near duplicates are found by MinHash (Broder, 1997) over character 5-grams, in time that grows with the rows.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .rows import Row

GRAM = 5
SIMILAR = 0.9  # Jaccard similarity of the 5-grams of whole rows, questions with their answers
BANDS, ROWS_A_BAND = 8, 4  # rows of similarity 0.9 share a band with a probability of 0.9999
PRIME = (1 << 31) - 1

Pair = tuple[int, int]


@dataclass(frozen=True)
class Duplicates:
    """Pairs of line numbers: `exact` and `near` duplicates within the training data, each later row with the
    first that it repeats, and `overlap`, a training row with the validation row that it equals or nearly."""

    exact: tuple[Pair, ...]
    near: tuple[Pair, ...]
    overlap: tuple[Pair, ...]


def duplicates(train: Iterable[tuple[int, Row]], val: Iterable[tuple[int, Row]] = ()) -> Duplicates:
    """Compare whole rows, without case, accents, space or punctuation; near ones have the same numbers too.

    Takes (line, row) pairs, as `iterate_rows` gives them.
    """
    index = _Index()
    exact, near, overlap = [], [], []
    for line, row in train:
        if (found := index.find(_text(row))) is None:
            index.add(line, _text(row))
        elif found[1]:
            exact.append((found[0], line))
        else:
            near.append((found[0], line))
    for line, row in val:
        if (found := index.find(_text(row))) is not None:
            overlap.append((found[0], line))
    return Duplicates(tuple(exact), tuple(near), tuple(overlap))


class _Index:
    """The rows so far, by their text and by the bands of their MinHash."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._factors, self._terms = random.integers(1, PRIME, (2, BANDS * ROWS_A_BAND, 1), dtype=np.int64)
        self._lines: dict[str, int] = {}
        self._bands: defaultdict[tuple[int, bytes], list[str]] = defaultdict(list)

    def find(self, text: str) -> tuple[int, bool] | None:
        """The line of a row like `text`, and whether it is the same; None when there is none."""
        if text in self._lines:
            return self._lines[text], True
        grams, numbers = _grams(text), re.findall(r"\d+", text)
        for band in self._bands_of(grams):
            for other in self._bands.get(band, ()):
                if re.findall(r"\d+", other) == numbers and _similarity(grams, _grams(other)) >= SIMILAR:
                    return self._lines[other], False
        return None

    def add(self, line: int, text: str) -> None:
        self._lines[text] = line
        for band in self._bands_of(_grams(text)):
            self._bands[band].append(text)

    def _bands_of(self, grams: np.ndarray) -> list[tuple[int, bytes]]:
        smallest = ((self._factors * grams + self._terms) % PRIME).min(axis=1).reshape(BANDS, ROWS_A_BAND)
        return [(number, band.tobytes()) for number, band in enumerate(smallest)]


def _text(row: Row) -> str:
    whole = row.text or "\n".join(message["content"] for message in row.messages)
    plain = unicodedata.normalize("NFKD", whole.casefold()).encode("ascii", "ignore").decode()
    return " ".join(re.findall(r"\w+", plain)) or whole


def _grams(text: str) -> np.ndarray:
    """The distinct 5-grams of `text`, as numbers below `PRIME`."""
    letters = np.frombuffer(text.encode().ljust(GRAM), np.uint8).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(letters, GRAM)
    return np.unique(windows @ (257 ** np.arange(GRAM, dtype=np.int64)) % PRIME)


def _similarity(one: np.ndarray, other: np.ndarray) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
