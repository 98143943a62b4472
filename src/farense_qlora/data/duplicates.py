"""Rows that say again what another one says, and rows so alike that a split must not part them.

Two rows say the same when nothing that a reader would miss tells them apart: all messages, tools and thoughts
are equal but for white space, the shape of quotation marks and a full stop at the end. Whatever else
differs, an operator, a capital, a word, makes two rows, and both stay. Rows are alike when they name
the same numbers and names and the character shingles of their texts overlap (Jaccard) by about `ALIKE` or
more, by MinHash signatures in bands (Broder, 1997), so that 100,000 rows take seconds.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from .rows import Row

ALIKE = 0.7  # as signatures estimate it, 0.07 off
SHINGLE = 5  # characters
# Rows that overlap by 0.9 share a band with a probability of 0.999, those that overlap by 0.5 of 0.22.
BANDS, HASHES_A_BAND = 8, 5
LOOKED_AT = 8  # rows before it in its band that a row is compared with, however many look like it
ROWS_A_BLOCK = 2_000
QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})


def row_key(row: Row) -> int:
    """A number that is equal for rows that say the same."""
    return _hash([_same(message) for message in row.messages] + [_same(row.tools), _plain(row.text)])


def asked_key(row: Row) -> int:
    """A number that is equal for conversations that ask the same: the last answer does not count."""
    return _hash([_same(message) for message in row.messages[:-1]] + [_same(row.tools), _plain(row.text)])


def _same(value: Any) -> Any:
    """`value` with its texts as `_plain` has them; a call's id names nothing."""
    if isinstance(value, dict):
        return {key: _same(one) for key, one in value.items() if key not in ("id", "tool_call_id")}
    if isinstance(value, list | tuple):
        return [_same(one) for one in value]
    return _plain(value) if isinstance(value, str) else value


def _plain(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).translate(QUOTES).split())
    return text[:-1] if text.endswith(".") and text[-2:-1].isalnum() else text


def _hash(value: Any) -> int:
    digest = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def repeated(keys: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Which of `keys` (rows,) are in `before`, as the position there of the first such; -1 for the others."""
    known, first = np.unique(before, return_index=True)
    at = np.searchsorted(known, keys)
    at[at == len(known)] = 0
    return np.where(known[at] == keys, first[at], -1) if len(known) else np.full(len(keys), -1)


def alike_groups(rows: Sequence[Row]) -> np.ndarray:
    """For each of `rows` the number of its group (rows,): rows that are alike, or ask the same, are in one.

    Rows that name other numbers or names are about other things, however alike the rest.
    """
    texts = [_loose(row) for row in rows]
    about = np.array([hash(numbers_and_names(_said(row))) for row in rows])
    early, late = _alike(_signatures(texts), about)
    for keys in (np.array([hash(text) for text in texts]), np.array([asked_key(row) for row in rows])):
        first = repeated(keys, keys)
        early, late = np.append(early, first), np.append(late, np.arange(len(rows)))
    group = np.arange(len(rows))
    while True:  # the smallest number spreads along the pairs
        low, before = np.minimum(group[early], group[late]), group.copy()
        np.minimum.at(group, early, low)
        np.minimum.at(group, late, low)
        group = group[group]
        if (group == before).all():
            return group


def numbers_and_names(text: str) -> frozenset[str]:
    """The numbers and names in `text`; a capital after a full stop or at the start says nothing."""
    text = re.sub(r"(^|[.?!:] )\w", lambda start: start.group().lower(), text)
    return frozenset(re.findall(r"\d[\d-]*|\b[A-ZÀ-Ý][\w-]*", text))


def _said(row: Row) -> str:
    """All that `row` says, but for the system's text, which is often the same and long."""
    return row.text or ". ".join(m["content"] for m in row.messages if m["role"] != "system")


def _loose(row: Row) -> str:
    """What `row` says, in small letters and without punctuation."""
    said = _said(row)
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", said).casefold())) or said


def _signatures(texts: Sequence[str]) -> np.ndarray:
    """MinHash signatures (texts, BANDS * HASHES_A_BAND), uint32: two texts agree in a share of them that
    estimates their overlap."""
    random = np.random.default_rng(0)
    factors = random.integers(1, 2**63, BANDS * HASHES_A_BAND, np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), len(factors)), np.uint32)
    for start in range(0, len(texts), ROWS_A_BLOCK):
        block = [text.ljust(SHINGLE) for text in texts[start : start + ROWS_A_BLOCK]]
        letters = np.frombuffer("".join(block).encode("utf-32-le"), np.uint32).astype(np.uint64)
        starts = np.cumsum([0, *map(len, block)])
        hashes = np.zeros(len(letters), np.uint64)
        for k in range(SHINGLE):
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + np.roll(letters, -k)
        hashes ^= hashes >> np.uint64(29)
        outside = (starts[1:, None] - np.arange(1, SHINGLE)).ravel()  # shingles that run into the next text
        for j, factor in enumerate(factors):
            mixed = hashes * factor >> np.uint64(32)
            mixed[outside] = np.uint64(2**32 - 1)
            signatures[start : start + len(block), j] = np.minimum.reduceat(mixed, starts[:-1])
    return signatures


def _alike(signatures: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of rows, earlier and later, of equal `keys` whose signatures share a band and agree."""
    pairs = [(np.zeros(0, int), np.zeros(0, int))]
    for band in range(BANDS):
        part = signatures[:, band * HASHES_A_BAND : (band + 1) * HASHES_A_BAND]
        bucket = np.column_stack([keys.view(np.uint32).reshape(-1, 2), part])
        order = np.lexsort(bucket.T)  # stable: equal buckets keep the rows' order
        for back in range(1, min(LOOKED_AT, len(order) - 1) + 1):
            early, late = order[:-back], order[back:]
            same = (bucket[early] == bucket[late]).all(axis=1)
            early, late = early[same], late[same]
            agree = (signatures[early] == signatures[late]).mean(axis=1) >= ALIKE
            pairs.append((early[agree], late[agree]))
    return np.concatenate([early for early, _ in pairs]), np.concatenate([late for _, late in pairs])
