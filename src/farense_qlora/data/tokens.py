"""The rows of a source as tokens, with what is learnt of them and what is wrong with the rest.

A source is tokenized once: the tokens are kept as Arrow in the user's cache folder, under a key of the data,
the tokenizer and its template, and mapped into memory: a million rows are ready at once and take no space.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import CACHE
from ..errors import UserError
from ..files import atomic_write, sha256
from .chat import Piece, encode_rows
from .duplicates import asked_key, row_key
from .rows import Row, parse_row
from .sources import fingerprint, parse_columns, read_values
from .template import chat_template

VERSION = 1  # of what this module and those below make of a row: a change here makes all caches anew
ROWS_A_CHUNK = 10_000
SHOWN = 20  # bad rows that an error lists
SCHEMA = pa.schema(
    {
        "line": pa.int64(),
        "row": pa.string(),  # of the first piece of a row, the row
        "key": pa.int64(),  # equal where rows say the same
        "asked": pa.int64(),  # equal where they ask the same
        "folded": pa.bool_(),
        "first": pa.int32(),  # the first position that has something to predict
        "tokens": pa.list_(pa.int32()),
        "supervised": pa.list_(pa.uint8()),
    }
)
Numbered = tuple[int, Row]  # with its line


@dataclass(frozen=True)
class Example:
    """A tokenized row: `tokens` (length,) int32; `supervised` (length,) bool, true where loss is taken."""

    tokens: np.ndarray
    supervised: np.ndarray


@dataclass(frozen=True)
class Bad:
    """A row that cannot be learnt, and why."""

    line: int
    reason: str


class Encoded(Sequence[Example]):
    """Tokenized rows, in their order, cut to `max_seq_length`: one example a row, or several of one `line`
    where its answers cannot be learnt in one pass.

    Of the examples, `lines`, `keys` and `asked` (examples,) say from which row they are and which are alike,
    `lengths` counts their tokens and `whole` what they had before. Raises `UserError`, listing the `bad`
    rows, if there are any (a cut that leaves nothing to learn makes one), unless `skip_bad`, and if none is
    good.
    """

    def __init__(
        self, table: pa.Table, bad: Sequence[Bad], max_seq_length: int, source: str, skip_bad: bool = False
    ):
        self._table = table
        self._chunks = [
            (chunk.offsets.to_numpy(), chunk.values.to_numpy(), other.values.to_numpy().view(bool))
            for chunk, other in zip(table["tokens"].chunks, table["supervised"].chunks, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets, _, _ in self._chunks)])
        whole = np.concatenate([np.diff(offsets) for offsets, _, _ in self._chunks] or [np.zeros(0, int)])
        lengths = np.minimum(whole, max_seq_length)
        lines = table["line"].to_numpy()
        learnable = table["first"].to_numpy() < lengths
        self._rows = np.flatnonzero(learnable)
        self.lines, self.lengths, self.whole = lines[self._rows], lengths[self._rows], whole[self._rows]
        self.keys, self.asked, self._folded = (
            table[name].to_numpy()[self._rows] for name in ("key", "asked", "folded")
        )
        cut = (
            f"perde toda a resposta ao ser cortada a {max_seq_length} tokens: aumente max_seq_length ou "
            "encurte a pergunta"
        )
        emptied = [Bad(int(line), cut) for line in np.unique(lines[~learnable])]
        self.bad = tuple(sorted([*bad, *emptied], key=lambda one: one.line))
        check(source, self.bad, len(self), skip_bad)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def truncated(self) -> int:
        """How many examples were cut."""
        return int((self.whole > self.lengths).sum())

    @property
    def folded(self) -> int:
        """How many rows have their system text in a user's turn, since the template takes none."""
        return len(np.unique(self.lines[self._folded]))

    @property
    def split(self) -> int:
        """How many rows became an example an answer."""
        return int((np.unique(self.lines, return_counts=True)[1] > 1).sum())

    def rows_with(self, text: str) -> int:
        """How many rows have `text` in their JSON."""
        return sum(text in row for row in self._json())

    @property
    def texts(self) -> int:
        """How many rows are bare text."""
        return sum(row.startswith('{"text"') for row in self._json())

    def where(self, kept: np.ndarray) -> "Encoded":
        """The examples that `kept` (examples,) bool is true of."""
        other = copy(self)
        for name in ("_rows", "lines", "lengths", "whole", "keys", "asked", "_folded"):
            setattr(other, name, getattr(self, name)[kept])
        return other

    def without(self, lines: Collection[int]) -> "Encoded":
        """The same, but for the rows on `lines`."""
        return self.where(~np.isin(self.lines, list(lines)))

    def rows(self) -> list[Numbered]:
        """The rows that the examples are of, each once."""
        lines = np.unique(self.lines).tolist()
        return [(line, Row.from_json(text)) for line, text in zip(lines, self._json(), strict=True)]

    def _json(self) -> list[str]:
        """The rows that the examples are of, as the table has them: at the first piece of each."""
        first = np.searchsorted(self._table["line"].to_numpy(), np.unique(self.lines))
        stored: list[str] = self._table["row"].take(first).to_pylist()
        return stored

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        stored = self._rows[row]
        chunk = int(np.searchsorted(self._starts, stored, side="right")) - 1
        offsets, tokens, supervised = self._chunks[chunk]
        start = offsets[stored - self._starts[chunk]]
        part = slice(start, start + self.lengths[row])
        return Example(tokens[part], supervised[part])


def check(source: object, bad: Sequence[Bad], good: int, skip_bad: bool) -> None:
    """Raise `UserError` for `bad` rows that are not to be skipped, all in one, and when none is `good`."""
    if bad and not skip_bad:
        shown = [f"linha {one.line}: {one.reason}" for one in bad[:SHOWN]]
        if len(bad) > 1:
            shown += [f"e mais {len(bad) - SHOWN}"] * (len(bad) > SHOWN)
            shown += [f"são {len(bad)} linhas que não servem: corrija-as, ou salte-as com --skip-bad"]
        raise UserError(f"{source}, " + "\n  ".join(shown))
    if not good:
        raise UserError(f"{source}: não tem nenhuma linha de dados" + (" que sirva" if bad else ""))


def read_rows(
    source: str | Path, skip_bad: bool = False, columns: str = "", encoding: str = "utf-8"
) -> list[Row]:
    """The rows of `source`, as they are before any model; a `Path` is as it stands, and a text as a setting
    has it (of the project's folder, or of the hub). Raises as `Encoded` does."""
    source, bad = _name(source), list[Bad]()
    rows = [row for _, row in _parsed(source, columns, encoding, bad)]
    check(source, bad, len(rows), skip_bad)
    return rows


def encode(rows: Iterable[Row], tokenizer: Any, max_seq_length: int) -> Encoded:
    """Tokenize `rows` in memory; raises `UserError` as `Encoded` does."""
    bad: list[Bad] = []
    table = pa.Table.from_batches(_batches(enumerate(rows, 1), tokenizer, bad), SCHEMA)
    return Encoded(table, bad, max_seq_length, "dados")


def encode_file(
    source: str | Path,
    tokenizer: Any,
    model: Path,
    max_seq_length: int,
    skip_bad: bool = False,
    progress: Callable[[int], object] = lambda _: None,
    columns: str = "",
    encoding: str = "utf-8",
) -> Encoded:
    """The rows of `source` as tokens of the model in the folder `model`; tokenized once, then mapped.

    `progress` is told how many rows were added; else as `read_rows`.
    """
    source = _name(source)
    target = CACHE / "tokens" / f"{_key(source, tokenizer, model, columns, encoding)}.arrow"
    found = _stored(target)
    if found is None:
        bad: list[Bad] = []
        rows = _parsed(source, columns, encoding, bad)
        with atomic_write(target) as partial, pa.ipc.new_file(str(partial), SCHEMA) as writer:
            for batch in _batches(_counted(rows, progress), tokenizer, bad):
                writer.write_batch(batch)
            writer.close()
            # The rows are there only when what is wrong with the others is.
            with atomic_write(target.with_suffix(".json")) as beside:
                beside.write_text(json.dumps([vars(one) for one in bad]), encoding="utf-8")
        found = _stored(target)
    if found is None:
        raise UserError(f"não consigo voltar a ler {target}: o disco não guardou o que se escreveu")
    return Encoded(*found, max_seq_length, source, skip_bad)


def _name(source: str | Path) -> str:
    return str(source.absolute()) if isinstance(source, Path) else source


def _stored(target: Path) -> tuple[pa.Table, list[Bad]] | None:
    """The table in `target`, mapped, and the bad rows beside it; None if they are not there, or damaged."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
        bad = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # pyarrow's own errors are among them
        return None
    return table, [Bad(**one) for one in bad]


def _parsed(source: str, columns: str, encoding: str, bad: list[Bad]) -> Iterator[Numbered]:
    """The good rows of `source`, each with its line; the others are added to `bad`."""
    ours = parse_columns(columns)
    for line, value in read_values(source, ours, encoding):
        try:
            if isinstance(value, ValueError):
                raise value
            yield line, parse_row(value, ours)
        except ValueError as error:
            bad.append(Bad(line, str(error)))


def _counted(rows: Iterable[Numbered], progress: Callable[[int], object]) -> Iterator[Numbered]:
    for row in rows:
        yield row
        progress(1)


def _key(source: str, tokenizer: Any, model: Path, columns: str, encoding: str) -> str:
    """A key of all that decides the tokens: the data, the tokenizer's files and its chat template."""
    parts = [
        VERSION,
        columns,
        encoding,
        fingerprint(source),
        chat_template(tokenizer),
        chat_template(tokenizer, True),
    ]
    parts += sorted(tokenizer.eos_token_ids)
    files = [path for path in sorted(model.rglob("*")) if path.is_file()]
    parts += [sha256(path) for path in files if path.suffix in (".json", ".model", ".jinja", ".txt")]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _batches(rows: Iterable[Numbered], tokenizer: Any, bad: list[Bad]) -> Iterator[pa.RecordBatch]:
    """The table of `rows`, a part at a time; rows whose conversation cannot be told truly go to `bad`."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS_A_CHUNK)):
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for (line, row), pieces in zip(some, encode_rows([row for _, row in some], tokenizer), strict=True):
            if isinstance(pieces, ValueError):
                bad.append(Bad(line, str(pieces)))
                continue
            for number, piece in enumerate(pieces):
                record = _record(piece)
                columns["line"].append(line)
                columns["row"].append("" if number else row.to_json())
                columns["key"].append(row_key(row))
                columns["asked"].append(asked_key(row))
                for name, value in record.items():
                    columns[name].append(value)
        if columns["line"]:
            yield pa.record_batch(
                [pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names], SCHEMA
            )


def _record(piece: Piece) -> dict[str, Any]:
    learnt = np.array(piece.supervised, bool)
    where = np.flatnonzero(learnt[1:]) + 1  # nothing predicts the first token
    return {
        "folded": piece.folded,
        "first": int(where[0]) if len(where) else len(learnt),
        "tokens": np.array(piece.tokens, np.int32),
        "supervised": learnt.view(np.uint8),
    }
