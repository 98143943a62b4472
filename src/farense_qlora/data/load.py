"""The rows of a run, loaded in one way for all that uses them: training, evaluation, exports, views."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import CACHE, HOME, Config
from ..errors import UserError
from ..files import atomic_write
from .duplicates import alike_groups, repeated
from .rows import Row
from .sources import beside, fingerprint
from .template import TODAY, is_dated, template_missing
from .tokens import Encoded, encode_file, read_rows

VALIDATION = "perguntas por outras palavras"
UNSEEN = "unseen_facts.jsonl"
SHARE, MOST = 0.1, 500  # of the rows, for validation when nobody gave any


@dataclass(frozen=True)
class Repeat:
    """The row on line `line` says what the one on line `of` says."""

    line: int
    of: int


@dataclass(frozen=True)
class Data:
    """What a run trains on and is measured on, and what was left out of it.

    `repeats` are training rows that say what an earlier one says, and `leaks` validation rows that are in the
    training; when all of them are, someone wants to see it learnt by heart: `memorised`, and none is left
    out. `conflicts` are rows of one question and several answers, by line. `split`: the validation was taken
    from the training rows. `found`: validation rows that lie beside them, and are not used.
    """

    training: Encoded
    validation: Encoded
    unseen: tuple[Row, ...]
    repeats: tuple[Repeat, ...]
    leaks: tuple[Repeat, ...]
    memorised: bool
    conflicts: tuple[tuple[int, ...], ...]
    split: bool
    found: str | None
    dated: bool
    plain: bool

    def sentences(self, config: Config) -> list[str]:
        """What was made of the files, in Portuguese: a line each, and one for whatever should be known."""
        said = [_summary(config.train_data, self.training, len(self.repeats))]
        if self.split:
            count = len(np.unique(self.validation.lines))
            said.append(
                f"validação: {_lines(count)} do treino, ao acaso (semente {config.seed}); as parecidas "
                "ficam juntas, de um lado ou do outro"
            )
        else:
            said.append(_summary(config.val_data, self.validation, len(self.leaks)))
        if self.found:
            said.append(
                f"há {self.found} ao lado, que não se usa; para validar com ele: --val-data {self.found}"
            )
        if self.repeats or self.leaks:
            some = [f"a {one.line} repete a {one.of}" for one in self.repeats[:1]]
            some += [f"a {one.line} da validação está no treino ({one.of})" for one in self.leaks[:1]]
            said.append(
                f"linhas repetidas que ficam de fora: {len(self.repeats)} de treino, {len(self.leaks)} da "
                f"validação ({'; '.join(some)}); com --no-remove-duplicates ficam"
            )
        if self.memorised:
            said.append("toda a validação está no treino: só mede o que se decora")
        if self.conflicts:
            some = [" e ".join(map(str, lines)) for lines in self.conflicts[:5]]
            more = " …" if len(self.conflicts) > 5 else ""
            said.append(
                f"a mesma pergunta com respostas diferentes: {len(self.conflicts)} "
                f"(linhas {'; '.join(some)}{more})"
            )
        if self.dated:
            said.append(f"o modelo de conversa escreve a data de hoje: fica fixa em {TODAY:%Y-%m-%d}")
        if self.plain:
            said.append(
                "o modelo base não tem modelo de conversa (chat template): perguntas e respostas vão como "
                "texto, uma por linha; pode dar um com --chat-template"
            )
        return said

    def held_out(self) -> dict[str, list[Row]]:
        """The rows kept from training: the validation and, of the club's own, facts that it does not have."""
        sets = {VALIDATION: [row for _, row in self.validation.rows()]}
        if self.unseen:
            sets["factos nunca vistos"] = list(self.unseen)
        return sets


def load_data(config: Config, base: Any, progress: Callable[[int], object] = lambda _: None) -> Data:
    """The rows that `config` names, as tokens of the model `base` (of its `tokenizer`, its files at `path`).

    Raises `UserError`, listing them, on rows that cannot be learnt, unless `config.skip_bad`; and when too
    few are left to train on and to validate with.
    """

    def encoded(source: str) -> Encoded:
        return encode_file(
            source,
            base.tokenizer,
            base.path,
            config.max_seq_length,
            config.skip_bad,
            progress,
            config.columns,
            config.encoding,
        )

    training = encoded(config.train_data)
    lines, keys, asked = _by_row(training)
    first = repeated(keys, keys)
    again = first < np.arange(len(keys)) if config.remove_duplicates else np.zeros(len(keys), bool)
    repeats = tuple(
        Repeat(int(line), int(lines[of])) for line, of in zip(lines[again], first[again], strict=True)
    )
    conflicts = _conflicts(lines, keys, asked)
    training = training.without(lines[again])
    leaks: tuple[Repeat, ...] = ()
    memorised = False
    if config.val_data:
        validation = encoded(config.val_data)
        ours, theirs, _ = _by_row(validation)
        where = repeated(theirs, keys)
        leaked = where >= 0
        memorised = bool(leaked.all())
        if not memorised and config.remove_duplicates:
            leaks = tuple(
                Repeat(int(line), int(lines[of]))
                for line, of in zip(ours[leaked], where[leaked], strict=True)
            )
            validation = validation.without(ours[leaked])
    else:
        taken = _split(config, training)
        validation = training.where(np.isin(training.lines, taken))
        training = training.without(taken)
    return Data(
        training=training,
        validation=validation,
        unseen=_unseen(config),
        repeats=repeats,
        leaks=leaks,
        memorised=memorised,
        conflicts=conflicts,
        split=not config.val_data,
        found=None if config.val_data else beside(config.train_data),
        dated=is_dated(base.tokenizer),
        plain=template_missing(base.tokenizer),
    )


def _summary(source: str, encoded: Encoded, repeated: int) -> str:
    """What became of the rows of one file, in one line."""
    thoughts = encoded.rows_with('"reasoning_content"')
    counts = (
        (encoded.texts, "de texto corrido, que se aprende todo"),
        (encoded.split, "partidas, uma por resposta"),
        (encoded.folded, "com o texto do sistema na pergunta, que o modelo não o aceita à parte"),
        (thoughts, "com pensamento"),
        (encoded.truncated, "cortadas"),
        (repeated, "repetidas, de fora"),
        (len(encoded.bad), "saltadas"),
    )
    parts = [f"{what}: {count}" for count, what in counts if count]
    return "; ".join([f"{source}: {_lines(len(np.unique(encoded.lines)))}", *parts])


def _lines(count: int) -> str:
    return "1 linha" if count == 1 else f"{count} linhas"


def _by_row(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lines (rows,) of the rows, and their keys: what they say, and what they ask."""
    lines, first = np.unique(encoded.lines, return_index=True)
    return lines, encoded.keys[first], encoded.asked[first]


def _conflicts(lines: np.ndarray, keys: np.ndarray, asked: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The lines of rows that ask the same and do not answer the same."""
    order = np.argsort(asked, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(asked[order])) + 1)
    return tuple(
        tuple(int(line) for line in lines[group])
        for group in sorted(
            (group for group in groups if len(set(keys[group])) > 1), key=lambda group: group[0]
        )
    )


def _split(config: Config, training: Encoded) -> list[int]:
    """The lines that are taken from `training` to validate with: whole groups of rows that are alike, at
    random by the seed; found once, and kept in the user's cache folder. Raises `UserError`."""
    key = f"{SHARE} {MOST} {config.seed} {fingerprint(config.train_data)} {config.columns} {config.encoding} "
    key = hashlib.sha256((key + str(np.unique(training.lines).tolist())).encode()).hexdigest()[:32]
    kept = CACHE / "splits" / f"{key}.json"
    with suppress(OSError, ValueError):
        lines: list[int] = json.loads(kept.read_text(encoding="utf-8"))
        return lines
    rows = training.rows()
    groups = alike_groups([row for _, row in rows])
    wanted = min(MOST, max(1, round(SHARE * len(rows))), len(rows) - 1)
    taken: list[int] = []
    for group in np.random.default_rng(config.seed).permutation(np.unique(groups)):
        members = np.flatnonzero(groups == group)
        if len(taken) + len(members) <= wanted:
            taken += [rows[i][0] for i in members]
        if len(taken) == wanted:
            break
    if not taken and len(rows) > len(smallest := _smallest(groups)) * 2:
        taken = [rows[i][0] for i in smallest]
    if not taken:
        raise UserError(
            f"{config.train_data}: não há linhas que cheguem para tirar uma parte para a validação sem que "
            "se repitam nas de treino: junte mais, ou dê um ficheiro com --val-data"
        )
    with suppress(UserError, OSError), atomic_write(kept) as path:  # a full disk only means looking again
        path.write_text(json.dumps(sorted(taken)), encoding="utf-8")
    return sorted(taken)


def _smallest(groups: np.ndarray) -> np.ndarray:
    """The members of the smallest of `groups` (rows,)."""
    numbers, counts = np.unique(groups, return_counts=True)
    return np.flatnonzero(groups == numbers[counts.argmin()])


def write_left_out(config: Config, data: Data, run: Path) -> None:
    """Keep what was taken from the files of `config` in the folder `run`: the rows of a validation that was
    made, and those that were skipped, each with its line and reason. Raises `UserError`."""
    rejected = [
        {"file": source, **vars(bad)}
        for source, encoded in ((config.train_data, data.training), (config.val_data, data.validation))
        for bad in (encoded.bad if source else ())
    ]
    rows = (
        [{"line": line, **json.loads(row.to_json())} for line, row in data.validation.rows()]
        if data.split
        else []
    )
    for name, lines in (("rejected.jsonl", rejected), ("validation.jsonl", rows)):
        if lines:
            with atomic_write(run / name) as path:
                path.write_text(
                    "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), encoding="utf-8"
                )


def _unseen(config: Config) -> tuple[Row, ...]:
    """The facts that are in no training row, where `prepare` wrote them beside the validation file."""
    path = (HOME / config.val_data).with_name(UNSEEN)
    return tuple(read_rows(path)) if config.val_data and path.is_file() else ()
