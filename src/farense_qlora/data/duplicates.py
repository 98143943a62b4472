"""Detect rows that say the same, and groups of rows so alike that a split must not part them.

Two rows say the same when nothing that a reader would miss tells them apart: all messages, tools and thoughts
are equal but for white space, the shape of quotation marks and a full stop at the end. Whatever else
differs, an operator, a capital, a word, makes two rows, and both stay. Rows are alike when they name the same
numbers and names and the character shingles of their texts overlap (Jaccard) by about `ALIKE` or more, by
MinHash signatures in bands (Broder, 1997), so that 100,000 rows take seconds.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .rows import Row

ALIKE = 0.7  # as signatures estimate it, 0.07 off
SHINGLE = 5  # characters
LETTERS = 20_000  # what follows is not looked at
# Rows that overlap by 0.9 share a band with a probability of 0.999, those that overlap by 0.5 with 0.22.
BANDS, HASHES_A_BAND = 8, 5
LOOKED_AT = 8  # rows before it in its band that a row is compared with, however many look like it
QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
POWERS = np.uint64(0x9E3779B97F4A7C15) ** np.arange(SHINGLE, dtype=np.uint64)  # of a rolling hash
FACTORS = np.random.default_rng(0).integers(1, 2**63, BANDS * HASHES_A_BAND, np.uint64) * np.uint64(2) + 1


def row_key(row: Row) -> int:
    """A number that is equal for rows that say the same."""
    return _hash([row.messages, row.tools, row.text])


def asked_key(row: Row) -> int:
    """A number that is equal for conversations that ask the same: the last answer does not count."""
    return _hash([row.messages[:-1], row.tools, row.text])


def _hash(value: Any) -> int:
    digest = hashlib.blake2b(json.dumps(_same(value), sort_keys=True).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _same(value: Any) -> Any:
    """`value` with its texts in one spelling; a call's id names nothing."""
    if isinstance(value, dict):
        return {key: _same(one) for key, one in value.items() if key not in ("id", "tool_call_id")}
    if isinstance(value, list | tuple):
        return [_same(one) for one in value]
    if not isinstance(value, str):
        return value
    text = " ".join(unicodedata.normalize("NFC", value).translate(QUOTES).split())
    return text[:-1] if text.endswith(".") and text[-2:-1].isalnum() else text


def alike_groups(rows: Sequence[Row]) -> np.ndarray:
    """For each of `rows` the number of its group (rows,): rows that are alike, or ask the same, are in one.

    Rows that name other numbers or names are about other things, however alike the rest.
    """
    said = [
        row.text or ". ".join(m["content"] for m in row.messages if m["role"] != "system") for row in rows
    ]
    pairs = [alike_pairs(said)]
    for keys in ([hash(_loose(text)) for text in said], [asked_key(row) for row in rows]):
        _, first, same = np.unique(keys, return_index=True, return_inverse=True)
        pairs.append((first[same], np.arange(len(rows))))
    early, late = np.concatenate(pairs, axis=1)
    group = np.arange(len(rows))
    while True:  # the smallest number spreads along the pairs
        low, before = np.minimum(group[early], group[late]), group.copy()
        np.minimum.at(group, early, low)
        np.minimum.at(group, late, low)
        group = group[group]
        if (group == before).all():
            return group


def alike_pairs(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of `texts` that are alike, as the positions of the earlier and the later one of each (pairs,)."""
    if not texts:
        return np.array([], int), np.array([], int)
    signatures = np.array([_signature(_loose(text)[:LETTERS]) for text in texts])
    about = np.array([hash(numbers_and_names(text)) for text in texts]).astype(np.uint64)
    pairs = []
    for start in range(0, BANDS * HASHES_A_BAND, HASHES_A_BAND):
        band = slice(start, start + HASHES_A_BAND)
        bucket = signatures[:, band] @ FACTORS[band] + about
        order = np.argsort(bucket, kind="stable")
        for back in range(1, LOOKED_AT + 1):
            early, late = order[:-back], order[back:]
            same = bucket[early] == bucket[late]
            early, late = early[same], late[same]
            agree = (signatures[early] == signatures[late]).mean(axis=1) >= ALIKE
            pairs.append((early[agree], late[agree]))
    early, late = np.concatenate(pairs, axis=1)
    return early, late


def numbers_and_names(text: str) -> frozenset[str]:
    """The numbers and names in `text`; a capital after a full stop or at the start says nothing.

    >>> sorted(numbers_and_names("Quem treinou o Farense em 1989-90?"))
    ['1989-90', 'Farense']
    """
    text = re.sub(r"(^|[.?!:] )\w", lambda start: start.group().lower(), text)
    return frozenset(re.findall(r"\d[\d-]*|\b[A-ZÀ-Ý][\w-]*", text))


def _loose(text: str) -> str:
    """`text` in small letters and without punctuation."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text


@lru_cache(maxsize=20_000)  # `prepare` asks of its training rows three times
def _signature(text: str) -> np.ndarray:
    """The MinHash signature (BANDS * HASHES_A_BAND,) uint64 of `text`: two texts agree in a share of it that
    estimates their overlap."""
    letters = np.frombuffer(text.ljust(SHINGLE).encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = np.convolve(letters, POWERS, "valid")  # of every `SHINGLE` letters
    hashes ^= hashes >> np.uint64(29)
    return (FACTORS[:, None] * hashes >> np.uint64(32)).min(axis=1)
