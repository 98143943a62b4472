"""The rows of a source as tokens, with what is learnt of them and what is wrong with the rest.

A source is tokenized once: the tokens are kept as Arrow in the user's cache folder, under a key of all that
decides them, and mapped into memory: a million rows are ready at once and take no space.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ..config import CACHE, Config
from ..errors import UserError
from ..files import atomic_write, sha256
from .careless import sometimes_careless
from .chat import encode_row
from .duplicates import asked_key, row_key
from .rows import Row, parse_row
from .sources import fingerprint, parse_columns, read_values
from .template import chat_template

ROWS_A_CHUNK = 2_000
SHOWN = 20  # bad rows that an error lists
SCHEMA = pa.schema(
    {
        "line": pa.int64(),
        "reason": pa.string(),  # why it is bad; then all that follows is `NOTHING`
        "row": pa.string(),  # as JSON; only at the first of its examples
        "key": pa.int64(),  # equal where rows say the same
        "asked": pa.int64(),  # equal where they ask the same
        "text": pa.bool_(),
        "thought": pa.bool_(),
        "folded": pa.bool_(),
        "first": pa.int32(),  # the first position that is learnt, but for 0, which nothing predicts
        "tokens": pa.list_(pa.int32()),
        "supervised": pa.list_(pa.uint8()),
    }
)
NOTHING = {"key": 0, "asked": 0, "text": False, "thought": False, "folded": False, "first": 0, "tokens": []}
Numbered = tuple[int, Row | ValueError]  # with its line


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What reads text as a model does: its `tokenizer`, as mlx-lm loads it, and the folder `path` with its
    files. It takes next to nothing in memory."""

    tokenizer: Any
    path: Path


@dataclass(frozen=True)
class Example:
    """A tokenized row: `tokens` (length,) int32; `supervised` (length,) bool, true where loss is taken."""

    tokens: np.ndarray
    supervised: np.ndarray

    def marked(self, tokenizer: Any) -> str:
        """Its text on one line, what is learnt of it between « and »."""
        parts = []
        for learnt, pairs in groupby(zip(self.supervised, self.tokens, strict=True), lambda pair: pair[0]):
            text = tokenizer.decode([int(token) for _, token in pairs])
            parts.append(f"«{text}»" if learnt else text)
        return "".join(parts).replace("\n", "⏎")


@dataclass(frozen=True)
class Bad:
    """A row that cannot be learnt, and why."""

    line: int
    reason: str


class Encoded(Sequence[Example]):
    """Tokenized rows, in their order, cut to `max_seq_length`: one example a row, or several of one `line`
    where its answers cannot be learnt in one pass.

    Of the examples, `lines`, `keys` and `asked` (examples,) say from which row they are and which are alike,
    `lengths` counts their tokens and `whole` what they had before. `bad` are the rows that are none of them.
    """

    def __init__(self, table: pa.Table, kept: np.ndarray, max_seq_length: int, bad: Sequence[Bad]):
        self._table, self._kept, self._limit, self.bad = table, kept, max_seq_length, tuple(bad)
        self._columns = table["tokens"], table["supervised"]
        self.lines, self.keys, self.asked = (self._column(name) for name in ("line", "key", "asked"))
        self.whole = pc.list_value_length(table["tokens"]).to_numpy()[kept]
        self.lengths = np.minimum(self.whole, max_seq_length)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        at, length = int(self._kept[i]), self.lengths[i]
        tokens, supervised = (column[at].values.to_numpy()[:length] for column in self._columns)
        return Example(tokens, supervised.view(bool))

    @property
    def truncated(self) -> int:
        """How many examples were cut."""
        return int((self.whole > self.lengths).sum())

    @property
    def split(self) -> int:
        """How many rows became an example an answer."""
        return int((np.unique(self.lines, return_counts=True)[1] > 1).sum())

    def count(self, flag: str) -> int:
        """How many rows are bare "text", have a "thought", or are "folded": with their system text in a
        user's turn, since the template takes none."""
        return len(np.unique(self.lines[self._column(flag)]))

    def where(self, kept: np.ndarray) -> "Encoded":
        """The examples that `kept` is true of (examples,), or that it names in the order wanted (any,)."""
        return Encoded(self._table, self._kept[kept], self._limit, self.bad)

    def without(self, lines: Collection[int]) -> "Encoded":
        """The same, but for the rows on `lines`."""
        return self.where(~np.isin(self.lines, list(lines)))

    def of_lines(self, lines: Iterable[int]) -> "Encoded":
        """The examples of the rows on `lines`, in that order; raises `UserError` when one has none."""
        places, wanted = pd.Series(self.lines).groupby(self.lines).indices, list(lines)
        if missing := [line for line in wanted if line not in places]:
            raise UserError(f"não há exemplos das linhas {', '.join(map(str, missing[:SHOWN]))}")
        return self.where(np.array([place for line in wanted for place in places[line]], int))

    def rows(self) -> list[tuple[int, Row]]:
        """The rows that the examples are of, each once, with its line."""
        lines = np.unique(self.lines)
        first = np.searchsorted(self._table["line"].to_numpy(), lines)
        stored = self._table["row"].take(first).to_pylist()
        return [(line, Row.from_json(text)) for line, text in zip(lines.tolist(), stored, strict=True)]

    def to_bytes(self) -> bytes:
        """All of it, for `from_bytes` in another process."""
        about = {"kept": self._kept.astype(np.int64).tobytes(), "limit": str(self._limit)}
        table, sink = self._table.replace_schema_metadata(about), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Encoded":
        """What `to_bytes` gave, but for the bad rows."""
        table = pa.ipc.open_stream(data).read_all()
        about = table.schema.metadata
        return cls(table, np.frombuffer(about[b"kept"], np.int64), int(about[b"limit"]), ())

    def _column(self, name: str) -> np.ndarray:
        return self._table[name].to_numpy()[self._kept]


def read_rows(
    source: str | Path, skip_bad: bool = False, columns: str = "", encoding: str = "utf-8"
) -> list[Row]:
    """The rows of `source`, as they are before any model; a `Path` is as it stands, and a text as a setting
    has it (of the project's folder, or of the hub). Raises `UserError` as `encode_file` does.

    >>> read_rows("data/val_data.jsonl")[0].messages[0]["content"]
    'Carlos Athaíde Ferreira esteve à frente do Farense em que período?'
    """
    source = _name(source)
    read = list(_read(source, columns, encoding))
    bad = [Bad(line, str(error)) for line, error in read if isinstance(error, ValueError)]
    rows = [row for _, row in read if isinstance(row, Row)]
    _check(source, bad, len(rows), skip_bad)
    return rows


def encode(rows: Iterable[Row], tokenizer: Any, max_seq_length: int) -> Encoded:
    """Tokenize `rows` in memory; raises `UserError` as `encode_file` does."""
    table = pa.Table.from_batches(_batches(enumerate(rows, 1), tokenizer), SCHEMA)
    return _encoded(table, max_seq_length, "dados", skip_bad=False)


def encode_file(
    source: str | Path,
    config: Config,
    base: Reader,
    progress: Callable[[int], object] = lambda _: None,
    careless: float = 0.0,
) -> Encoded:
    """The rows of `source` as tokens of `base`, the questions of a share `careless` of them typed carelessly;
    tokenized once, and then mapped. `progress` is told how many rows were added.

    Raises `UserError`, listing the bad rows, if there are any (a cut to `config.max_seq_length` that leaves
    nothing to learn makes one), unless `config.skip_bad`; and if none is good.
    """
    source = _name(source)
    target = CACHE / "tokens" / f"{_key(source, config, base, careless)}.arrow"
    try:
        table = _mapped(target)
    except (OSError, pa.ArrowException):  # not there, or damaged
        rows = _read(source, config.columns, config.encoding)
        with atomic_write(target) as partial, pa.ipc.new_file(str(partial), SCHEMA) as writer:
            for batch in _batches(rows, base.tokenizer, config.answer_style, careless, config.seed):
                writer.write_batch(batch)
                progress(len(np.unique(batch["line"])))
        table = _mapped(target)
    return _encoded(table, config.max_seq_length, source, config.skip_bad)


def _name(source: str | Path) -> str:
    return str(source.absolute()) if isinstance(source, Path) else source


def _key(source: str, config: Config, base: Reader, careless: float) -> str:
    """A key of all that decides the tokens: the data, the tokenizer's files, its chat template, our code."""
    tokenizer = base.tokenizer
    files = [*sorted(Path(__file__).parent.glob("*.py")), *sorted(base.path.rglob("*"))]
    parts: list[Any] = [(careless, config.seed) if careless else "", config.answer_style]
    parts += [config.columns, config.encoding, fingerprint(source), *sorted(tokenizer.eos_token_ids)]
    parts += [chat_template(tokenizer), chat_template(tokenizer, True)]
    decisive = (".py", ".json", ".model", ".jinja", ".txt")
    parts += [sha256(path) for path in files if path.suffix in decisive and path.is_file()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _mapped(target: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(target))).read_all()


def _read(source: str, columns: str, encoding: str) -> Iterator[Numbered]:
    """The rows of `source`, or what is wrong with them, each with its line."""
    ours = parse_columns(columns)
    for line, value in read_values(source, ours, encoding):
        try:
            yield line, value if isinstance(value, ValueError) else parse_row(value, ours)
        except ValueError as error:
            yield line, error


def _batches(
    rows: Iterable[Numbered], tokenizer: Any, style: str = "short", careless: float = 0.0, seed: int = 0
) -> Iterator[pa.RecordBatch]:
    """The table of `rows`, a part at a time. The `style` of the answers, and the share of questions that are
    typed carelessly, show in the tokens alone."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS_A_CHUNK)):
        records: list[dict[str, Any]] = []
        for line, row in some:
            try:
                if isinstance(row, ValueError):
                    raise row
                asked = sometimes_careless(row.in_style(style), careless, seed, line)
                pieces = encode_row(asked, tokenizer)
            except ValueError as error:
                records.append(NOTHING | {"line": line, "reason": str(error)})
                continue
            for number, piece in enumerate(pieces):
                learnt = np.array(piece.supervised, np.uint8)
                where = np.flatnonzero(learnt[1:]) + 1
                record = {
                    "line": line,
                    "row": None if number else row.to_json(),
                    "key": row_key(row),
                    "asked": asked_key(row),
                    "text": bool(row.text),
                    "thought": any("reasoning_content" in message for message in row.messages),
                    "folded": piece.folded,
                    "first": where[0] if len(where) else len(learnt),
                    "tokens": np.array(piece.tokens, np.int32),
                    "supervised": learnt,
                }
                records.append(record)
        yield pa.RecordBatch.from_pylist(records, SCHEMA)


def _encoded(table: pa.Table, max_seq_length: int, source: str, skip_bad: bool) -> Encoded:
    """The examples of `table` of which the cut leaves something to learn."""
    lengths = pc.list_value_length(table["tokens"]).to_numpy()
    learnable = table["first"].to_numpy() < np.minimum(lengths, max_seq_length)
    cut = (
        f"perde toda a resposta ao ser cortada a {max_seq_length} tokens: aumente max_seq_length ou "
        "encurte a pergunta"
    )
    lost = table.select(["line", "reason"]).filter(pa.array(~learnable)).to_pylist()
    reasons = {one["line"]: one["reason"] or cut for one in lost}
    bad = [Bad(line, reason) for line, reason in reasons.items()]
    _check(source, bad, int(learnable.sum()), skip_bad)
    return Encoded(table, np.flatnonzero(learnable), max_seq_length, bad)


def _check(source: str, bad: Sequence[Bad], good: int, skip_bad: bool) -> None:
    """Raise `UserError` for `bad` rows that are not to be skipped, all in one, and when none is `good`."""
    if bad and not skip_bad:
        shown = [f"linha {one.line}: {one.reason}" for one in bad[:SHOWN]]
        if len(bad) > SHOWN:
            shown.append(f"e mais {len(bad) - SHOWN}")
        if len(bad) > 1:
            shown.append(f"são {len(bad)} linhas que não servem: corrija-as, ou salte-as com --skip-bad")
        raise UserError(f"{source}, " + "\n  ".join(shown))
    if not good:
        raise UserError(f"{source}: não tem nenhuma linha de dados" + (" que sirva" if bad else ""))
