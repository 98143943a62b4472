"""Rows that say again what another one says: found within training, and between training and validation.

Two rows are the same when question and answer are, but for capitals, spaces and punctuation; and nearly the
same when they name the same numbers and names, and the character shingles of their questions overlap
(Jaccard) by `ALIKE` or more, and so do those of their answers. Templated rows about different things are
neither. Candidates come from MinHash signatures in bands (Broder, 1997), so that 100,000 rows take seconds.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from ..config import CACHE
from ..errors import UserError
from ..files import whole_file
from .rows import Row, fingerprint, iterate_rows

ALIKE = 0.9
SHINGLE = 5  # characters
# Rows that overlap by 0.9 share a band with a probability of 0.999, those that overlap by 0.5 of 0.22.
BANDS, HASHES_A_BAND = 8, 5
LOOKED_AT = 8  # rows before it in its band that a row is compared with, however many look like it
ROWS_A_BLOCK = 2_000

Numbered = tuple[int, Row]  # with its line


@dataclass(frozen=True)
class Repeat:
    """The row on line `line` says what the one on line `of` says, word for word (`exact`) or nearly."""

    line: int
    of: int
    exact: bool


@dataclass(frozen=True)
class Repeats:
    """The rows to leave out: of training those that repeat an earlier one; of validation those that repeat
    one of training, on whose line `of` is.

    When all of the validation is in the training, someone wants to see it learnt by heart: `memorised`, and
    none is left out.
    """

    training: tuple[Repeat, ...]
    validation: tuple[Repeat, ...]
    memorised: bool


def find_repeats(train: Path, validation: Path, skip_bad: bool = False) -> Repeats:
    """The repeats in two files of rows; found once, and kept in the user's cache folder.

    Raises `UserError` on a bad row, unless `skip_bad`.
    """
    settings = (ALIKE, SHINGLE, BANDS, HASHES_A_BAND, LOOKED_AT, skip_bad)
    key = f"{settings} {fingerprint(train)} {fingerprint(validation)}"
    kept = CACHE / "repeats" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        stored = json.loads(kept.read_text(encoding="utf-8"))
        ours, theirs = (tuple(Repeat(*one) for one in part) for part in stored["repeats"])
        return Repeats(ours, theirs, stored["memorised"])
    found = repeats(list(iterate_rows(train, skip_bad)), list(iterate_rows(validation, skip_bad)))
    parts = [[astuple(one) for one in part] for part in (found.training, found.validation)]
    with suppress(UserError, OSError):  # a full disk only means looking again
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept) as path:
            path.write_text(json.dumps({"repeats": parts, "memorised": found.memorised}), encoding="utf-8")
    return found


def repeats(training: Sequence[Numbered], validation: Sequence[Numbered]) -> Repeats:
    """The repeats among two sets of rows, each with the number of its line."""
    ours, count = _repeated([row for _, row in training]), len(training)
    both = [*training, *validation]
    theirs = [
        (late, early, exact)
        for late, early, exact in _repeated([row for _, row in both])
        if late >= count > early
    ]
    memorised = 0 < len(theirs) == len(validation)
    within, across = (
        tuple(Repeat(both[late][0], both[early][0], exact) for late, early, exact in part)
        for part in (ours, [] if memorised else theirs)
    )
    return Repeats(within, across, memorised)


def _repeated(rows: Sequence[Row]) -> list[tuple[int, int, bool]]:
    """The positions of the rows that repeat an earlier one, each with the first that it repeats, and whether
    it does so exactly."""
    parts = [_parts(row) for row in rows]
    first: dict[tuple[str, str], int] = {}
    found = {}
    for i, part in enumerate(parts):
        if (earlier := first.setdefault(part, i)) != i:
            found[i] = (i, earlier, True)
    distinct = list(first.values())
    signatures = _signatures([f"{parts[i][0]} {parts[i][1]}" for i in distinct])
    keys = np.array([hash(numbers_and_names(_told(rows[i]))) for i in distinct])
    for early, late in _candidates(signatures, keys):
        i, j = distinct[early], distinct[late]
        if j not in found and all(_overlap(a, b) >= ALIKE for a, b in zip(parts[i], parts[j], strict=True)):
            found[j] = (j, i, False)
    return [found[i] for i in sorted(found)]


def numbers_and_names(text: str) -> frozenset[str]:
    """The numbers and names in `text`; a capital after a full stop or at the start says nothing."""
    text = re.sub(r"(^|[.?!:] )\w", lambda start: start.group().lower(), text)
    return frozenset(re.findall(r"\d[\d-]*|\b[A-ZÀ-Ý][\w-]*", text))


def _told(row: Row) -> str:
    """All that `row` says, but for the system's prompt, which is often the same and long."""
    return row.text or ". ".join(m["content"] for m in row.messages if m["role"] != "system")


def _parts(row: Row) -> tuple[str, str]:
    """What is asked and what is answered, without capitals, punctuation and more than one space."""
    if row.text:
        return "", _plain(row.text)
    asked, answered = (
        _plain(" ".join(m["content"] for m in row.messages if m["role"] == role))
        for role in ("user", "assistant")
    )
    return asked, answered


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text


def _overlap(one: str, other: str) -> float:
    """The overlap (Jaccard) of the character shingles of two texts."""
    if one == other:
        return 1.0
    first, second = (
        {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))} for text in (one, other)
    )
    return len(first & second) / len(first | second)


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


def _candidates(signatures: np.ndarray, keys: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (earlier, later) of equal `keys` whose signatures share a band and agree well, in order."""
    pairs: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = signatures[:, band * HASHES_A_BAND : (band + 1) * HASHES_A_BAND]
        bucket = np.column_stack([keys.view(np.uint32).reshape(-1, 2), part])
        order = np.lexsort(bucket.T)  # stable: equal buckets keep the rows' order
        for back in range(1, min(LOOKED_AT, len(order) - 1) + 1):
            early, late = order[:-back], order[back:]
            alike = (bucket[early] == bucket[late]).all(axis=1)
            early, late = early[alike], late[alike]
            agree = (signatures[early] == signatures[late]).mean(axis=1) >= ALIKE - 0.2
            pairs.update(zip(early[agree].tolist(), late[agree].tolist(), strict=True))
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))
