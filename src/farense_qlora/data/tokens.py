"""Rows to tokens: the chat template applied once, and a mask over the assistant's tokens of every turn.

A file is tokenized once: the tokens are kept as Arrow in the user's cache folder, under a key of the data,
the tokenizer and its template, and mapped into memory: a million rows are ready at once and take no space.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa

from ..config import CACHE
from ..errors import UserError
from ..files import sha256
from .rows import Row, fingerprint, iterate_rows

ROWS_A_CHUNK = 10_000
SCHEMA = {"line": "int64", "first": "int32", "tokens": "int32", "supervised": "uint8"}


@dataclass(frozen=True)
class Example:
    """A tokenized row: `tokens` (length,) int32; `supervised` (length,) bool, true where loss is taken."""

    tokens: np.ndarray
    supervised: np.ndarray


class Encoded(Sequence[Example]):
    """Tokenized rows, in their order, cut to `max_seq_length`; `lengths` (rows,) counts their tokens, and
    `whole` (rows,) what they had before.

    Raises `UserError`, naming the row, if a cut leaves one nothing to learn; `source` says where it is from.
    With `skip_bad` such rows are left out instead, and counted in `emptied`.
    """

    def __init__(self, table: pa.Table, max_seq_length: int, source: str = "dados", skip_bad: bool = False):
        lines = table["line"].to_numpy()
        self._chunks = [
            (chunk.offsets.to_numpy(), chunk.values.to_numpy(), other.values.to_numpy().view(bool))
            for chunk, other in zip(table["tokens"].chunks, table["supervised"].chunks, strict=True)
        ]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets, _, _ in self._chunks)])
        whole = np.concatenate([np.diff(offsets) for offsets, _, _ in self._chunks])
        lengths = np.minimum(whole, max_seq_length)
        learnable = table["first"].to_numpy() < lengths
        self._rows = np.flatnonzero(learnable)
        self.lines, self.lengths, self.whole = lines[self._rows], lengths[self._rows], whole[self._rows]
        self.emptied = len(lines) - len(self._rows)
        if self.emptied and not (skip_bad and len(self._rows)):
            raise UserError(
                f"{source}, linha {lines[~learnable][0]}: perde toda a resposta ao ser cortada a "
                f"{max_seq_length} tokens: aumente max_seq_length ou encurte a pergunta"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def truncated(self) -> int:
        """How many rows were cut."""
        return int((self.whole > self.lengths).sum())

    def without(self, lines: Collection[int]) -> "Encoded":
        """The same, but for the rows on `lines`."""
        kept, other = ~np.isin(self.lines, list(lines)), copy(self)
        for name in ("_rows", "lines", "lengths", "whole"):
            setattr(other, name, getattr(self, name)[kept])
        return other

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        stored = self._rows[row]
        chunk = int(np.searchsorted(self._starts, stored, side="right")) - 1
        offsets, tokens, supervised = self._chunks[chunk]
        start = offsets[stored - self._starts[chunk]]
        part = slice(start, start + self.lengths[row])
        return Example(tokens[part], supervised[part])


def encode(rows: Sequence[Row], tokenizer: Any, max_seq_length: int) -> Encoded:
    """Tokenize `rows` in memory; raises `UserError` as `Encoded` does."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for record in _records(enumerate(rows, 1), tokenizer):
        for name, value in record.items():
            columns[name].append(value)
    types = {name: pa.type_for_alias(kind) for name, kind in SCHEMA.items()}
    table = pa.table(
        {
            name: pa.array(values, types[name] if name in ("line", "first") else pa.list_(types[name]))
            for name, values in columns.items()
        }
    )
    return Encoded(table, max_seq_length)


def encode_file(
    path: Path,
    tokenizer: Any,
    model: Path,
    max_seq_length: int,
    skip_bad: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Encoded:
    """The rows of `path` as tokens of the model in the folder `model`; tokenized once, then mapped.

    `progress` is told how many rows were added. Raises `UserError` on a bad row, unless `skip_bad`.
    """
    target = CACHE / "tokens" / f"{_key(path, model, skip_bad)}.arrow"
    if not target.exists():
        _write(target, _records(iterate_rows(path, skip_bad), tokenizer, str(path)), progress)
    table = pa.ipc.open_stream(pa.memory_map(str(target))).read_all()
    return Encoded(table, max_seq_length, str(path), skip_bad)


def prompt_tokens(messages: Sequence[dict[str, str]], tokenizer: Any) -> list[int]:
    """The conversation so far as the model sees it when it is its turn to answer."""
    return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True))


def _key(path: Path, model: Path, skip_bad: bool) -> str:
    """A key of all that decides the tokens: the data, and the tokenizer's files with its chat template."""
    digest = hashlib.sha256(f"{SCHEMA} {skip_bad} {fingerprint(path)}".encode())
    for file in sorted(model.iterdir()):
        if "token" in file.name or "chat" in file.name:
            digest.update(sha256(file).encode())
    return digest.hexdigest()[:32]


def _write(target: Path, records: Iterable[dict[str, Any]], progress: Callable[[int], object]) -> None:
    """Write the Arrow file whole: it appears under its name only when it is complete."""
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    features = Features(
        {
            name: Value(kind) if name in ("line", "first") else List(Value(kind))
            for name, kind in SCHEMA.items()
        }
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}")
    try:
        with ArrowWriter(features=features, path=str(partial), writer_batch_size=ROWS_A_CHUNK) as writer:
            for record in records:
                writer.write(record)
                progress(1)
            writer.finalize()
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _records(
    rows: Iterable[tuple[int, Row]], tokenizer: Any, source: str = "dados"
) -> Iterator[dict[str, Any]]:
    """The columns of each (line, row); `first` is the first position that has something to predict."""
    for line, row in rows:
        try:
            tokens, supervised = (
                _encode_text(row, tokenizer) if row.text else _encode_messages(row, tokenizer)
            )
        except jinja2.TemplateError as error:
            raise UserError(f"{source}, linha {line}: o modelo não aceita esta conversa ({error})") from None
        first = next((i for i, learnt in enumerate(supervised) if learnt and i), len(tokens))
        yield {
            "line": line,
            "first": first,
            "tokens": np.array(tokens, np.int32),
            "supervised": np.array(supervised, np.uint8),
        }


def _encode_text(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    tokens = [*tokenizer.encode(row.text), tokenizer.eos_token_id]
    return tokens, [True] * len(tokens)


def _encode_messages(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Template the whole conversation, then mark what each answer adds to the prompt before it."""
    messages = list(row.messages)
    tokens = list(tokenizer.apply_chat_template(messages))
    supervised = [False] * len(tokens)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = len(prompt_tokens(messages[:turn], tokenizer))
        end = len(tokens)
        if turn + 1 < len(messages):
            end = len(tokenizer.apply_chat_template(messages[: turn + 1]))
        supervised[start:end] = [True] * (end - start)
    return tokens, supervised
