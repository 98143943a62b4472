"""The rows of a run, loaded in one way for all that uses them: training, evaluation, exports, views."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

from ..config import CACHE, HOME, ROOT, Config
from ..errors import UserError
from ..files import atomic_write
from ..table import Drawn, Table
from ..text import counted, decimal, percent
from .batches import make_sampler
from .careless import careless_row
from .duplicates import alike_groups
from .rows import LABELS, Row
from .sources import beside, fingerprint, size
from .template import TODAY, chat_template, template_missing
from .tokens import Encoded, Reader, encode_file, read_rows

VALIDATION = "perguntas por outras palavras"
SPLIT = "validação"  # what was taken from the training rows asks for what they do not teach
CARELESS = "as mesmas, escritas à pressa"
# What `prepare` writes beside the validation, to be asked as well.
ASKED_TOO = {
    "other_words.jsonl": "construídas de outra maneira",
    "unanswerable.jsonl": "sem resposta nas tabelas",
    "unseen_facts.jsonl": "factos nunca vistos",
}
MOST_CARELESS = 150
GENERAL = ROOT / "data" / "portugues.jsonl"  # what a model should not forget
SHARE, MOST = 0.1, 500  # of the rows, for validation when nobody gave any

Lines = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, repr=False)
class Data(Drawn):
    """What a run trains on and is measured on, and what was left out of it. `general` are texts in Portuguese
    about other things, by which one sees what it forgets.

    `repeats` are training rows that say what an earlier one says, and `leaks` validation rows that are in the
    training, each by its line and that of the other; when all leak, someone wants to see it learnt by heart:
    `memorised`, and none is left out. `conflicts` are rows of one question and several answers, by line.
    """

    config: Config
    tokenizer: Any
    training: Encoded
    validation: Encoded
    general: Encoded
    asked_too: dict[str, list[Row]]
    repeats: tuple[Lines, ...]
    leaks: tuple[Lines, ...]
    memorised: bool
    conflicts: tuple[Lines, ...]

    @property
    def split(self) -> bool:
        """Whether the validation was taken from the training rows."""
        return not self.config.val_data

    @property
    def sentences(self) -> list[str]:
        """What was made of the files, in Portuguese: a line each, and one for whatever should be known."""
        config = self.config
        said = [_summary(config.train_data, self.training, self.repeats)]
        if self.split:
            said.append(
                f"validação: {_lines(self.validation)} do treino, ao acaso (semente {config.seed}); as "
                "parecidas ficam juntas, de um lado ou do outro"
            )
        else:
            said.append(_summary(config.val_data, self.validation, self.leaks))
        if self.split and (found := beside(config.train_data)):
            said.append(f"há {found} ao lado, que não se usa; para validar com ele: --val-data {found}")
        if self.repeats or self.leaks:
            some = [f"a {line} repete a {of}" for line, of in self.repeats[:1]]
            some += [f"a {line} da validação está no treino ({of})" for line, of in self.leaks[:1]]
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
        if "strftime_now" in chat_template(self.tokenizer):
            said.append(f"o modelo de conversa escreve a data de hoje: fica fixa em {TODAY:%Y-%m-%d}")
        if template_missing(self.tokenizer):
            said.append(
                "o modelo base não tem modelo de conversa (chat template): perguntas e respostas vão como "
                "texto, uma por linha; pode dar um com --chat-template"
            )
        return said

    def check(self) -> None:
        """Raise `UserError` when a micro-batch takes more rows than there are to train on."""
        if self.config.batch_size > (rows := len(self.training)):
            raise UserError(
                f"batch_size = {self.config.batch_size} é maior do que os dados de treino "
                f"({counted(rows, 'linha')} em {self.config.train_data}): reduza o lote (--batch-size)"
            )

    @property
    def kinds(self) -> Table:
        """How many rows of each kind each set has."""
        sets = {"treino": [row for _, row in self.training.rows()], **self.held_out()}
        sets.pop(CARELESS, None)  # they are the validation's
        counts = pd.DataFrame({name: Counter(row.kind for row in rows) for name, rows in sets.items()})
        counts = counts.fillna(0).astype(int).sort_index()
        counts.loc["total"] = counts.sum()
        counts.insert(0, "Tipo de pergunta", [LABELS.get(kind, kind or "outro") for kind in counts.index])
        return Table(counts)

    def table(self) -> Table:
        """What training will see: tokens, how full the windows are, and what is left out."""
        training, config = self.training, self.config
        sampler = make_sampler(config, training.lengths)
        tokens = int((training.lengths - 1).sum())
        learnt = sum(int(example.supervised[1:].sum()) for example in training)
        fill = "sem empacotar"
        if sampler.window:
            windows = sum(len(batch) for n in range(sampler.updates_per_epoch) for batch in sampler[n])
            share = percent(tokens / (windows * sampler.window))
            fill = f"{share} de {counted(windows, 'janela')} de {sampler.window} tokens"
        facts = [
            ("Linhas", decimal(len(training), 0)),
            ("Tokens", f"{decimal(tokens, 0)}, dos quais se aprendem {percent(learnt / tokens)}"),
            ("Ocupação", fill),
            ("Atualizações por época", decimal(sampler.updates_per_epoch, 0)),
        ]
        facts += [("" if number else "O que se fez", text) for number, text in enumerate(self.sentences)]
        facts += [(f"Saltada, linha {bad.line}", bad.reason) for bad in training.bad[:3]]
        return Table.of_facts("Dados", facts)

    def held_out(self) -> dict[str, list[Row]]:
        """The rows kept from training, by what they show: the validation, some of it typed carelessly, and
        what `prepare` wrote beside it: other words, what has no answer, facts never taught."""
        rows = [row for _, row in self.validation.rows()]
        asking = [(number, row) for number, row in enumerate(rows) if row.messages]
        some = asking[:: -(-len(asking) // MOST_CARELESS) or 1]
        careless = [careless_row(row, Random(number), other=True) for number, row in some]
        sets = {SPLIT if self.split else VALIDATION: rows, CARELESS: careless, **self.asked_too}
        return {name: rows for name, rows in sets.items() if rows}


def load_data(config: Config, base: Reader, progress: Callable[[int], object] = lambda _: None) -> Data:
    """The rows that `config` names, as tokens of `base`; `progress` is told how many more were tokenized.

    Raises `UserError`, listing them, on rows that cannot be learnt, unless `config.skip_bad`; and when too
    few are left to train on and to validate with.

    >>> data = fq.load_data(config, base)
    >>> len(data.training), len(data.validation)
    (8, 8)
    """
    training = encode_file(config.train_data, config, base, progress, config.careless)
    rows = _by_row(training)
    first = rows.drop_duplicates("key").set_index("key")["line"]  # where each thing is said first
    again = rows[rows.duplicated("key") & config.remove_duplicates]
    training = training.without(again["line"])
    several = rows[rows.groupby("asked")["key"].transform("nunique") > 1]  # answers to one question
    leaks: tuple[Lines, ...] = ()
    memorised = False
    asked_too: dict[str, list[Row]] = {}
    if config.val_data:
        validation = encode_file(config.val_data, config, base, progress)
        asked = _by_row(validation)
        leaked = asked[asked["key"].isin(first.index)]
        memorised = len(leaked) == len(asked)
        if not memorised and config.remove_duplicates:
            leaks = _repeats(leaked, first)
            validation = validation.without(leaked["line"])
        for written, name in ASKED_TOO.items():
            path = (HOME / config.val_data).with_name(written)
            if path.is_file() and path.stat().st_size:
                asked_too[name] = read_rows(path)
    else:
        taken = _split(config, training)
        validation, training = training.where(np.isin(training.lines, taken)), training.without(taken)
    with suppress(UserError, OSError), atomic_write(_lengths_file(config)) as path, open(path, "wb") as file:
        np.save(file, training.lengths)
    return Data(
        config=config,
        tokenizer=base.tokenizer,
        training=training,
        validation=validation,
        general=encode_file(GENERAL, config.changed(columns="", encoding="utf-8"), base),
        asked_too=asked_too,
        repeats=_repeats(again, first),
        leaks=leaks,
        memorised=memorised,
        conflicts=tuple(tuple(lines) for _, lines in several.groupby("asked", sort=False)["line"]),
    )


def known_lengths(config: Config) -> np.ndarray | None:
    """How many tokens each row has that `config` trains on (rows,), where `load_data` has read them before.

    Raises `UserError` when their file is not there.
    """
    with suppress(OSError, ValueError):
        return np.load(_lengths_file(config))
    return None


def _lengths_file(config: Config) -> Path:
    settings = {"model", "chat_template", "seed", *Config.by_group()["Dados"]} - {"packing"}
    decisive = sorted(config.model_dump(include=settings).items()), size(config.train_data)
    return CACHE / "lengths" / f"{hashlib.sha256(repr(decisive).encode()).hexdigest()[:32]}.npy"


def write_left_out(config: Config, data: Data, run: Path) -> None:
    """Keep what was taken from the files of `config` in the folder `run`: the rows of a validation that was
    made, and those that were skipped, each with its line and reason. Raises `UserError`."""
    rejected = [
        {"file": source, **vars(bad)}
        for source, encoded in ((config.train_data, data.training), (config.val_data, data.validation))
        for bad in (encoded.bad if source else ())
    ]
    made = data.validation.rows() if data.split else []
    validation = [{"line": line, **json.loads(row.to_json())} for line, row in made]
    for name, rows in (("rejected.jsonl", rejected), ("validation.jsonl", validation)):
        if rows:
            with atomic_write(run / name) as path:
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                path.write_text("".join(lines), encoding="utf-8")


def _summary(source: str, encoded: Encoded, repeats: tuple[Lines, ...]) -> str:
    """What became of the rows of one file, in one line."""
    counts = {
        "de texto corrido, que se aprende todo": encoded.count("text"),
        "partidas, uma por resposta": encoded.split,
        "com o texto do sistema na pergunta, que o modelo não o aceita à parte": encoded.count("folded"),
        "com pensamento": encoded.count("thought"),
        "cortadas": encoded.truncated,
        "repetidas, de fora": len(repeats),
        "saltadas": len(encoded.bad),
    }
    parts = [f"{what}: {count}" for what, count in counts.items() if count]
    return "; ".join([f"{source}: {_lines(encoded)}", *parts])


def _lines(encoded: Encoded) -> str:
    return counted(len(np.unique(encoded.lines)), "linha")


def _by_row(encoded: Encoded) -> pd.DataFrame:
    """The rows by `line`, with a `key` of what they say and one of what they ask, `asked`."""
    lines, first = np.unique(encoded.lines, return_index=True)
    return pd.DataFrame({"line": lines, "key": encoded.keys[first], "asked": encoded.asked[first]})


def _repeats(again: pd.DataFrame, first: "pd.Series[int]") -> tuple[Lines, ...]:
    return tuple(zip(again["line"].tolist(), again["key"].map(first).tolist(), strict=True))


def _split(config: Config, training: Encoded) -> list[int]:
    """The lines that are taken from `training` to validate with: whole groups of rows that are alike, at
    random by the seed; found once, and kept in the user's cache folder. Raises `UserError`."""
    key = f"{SHARE} {MOST} {config.seed} {fingerprint(config.train_data)} {config.columns} {config.encoding} "
    key = hashlib.sha256((key + str(np.unique(training.lines).tolist())).encode()).hexdigest()[:32]
    kept = CACHE / "splits" / f"{key}.json"
    with suppress(OSError, ValueError):
        return json.loads(kept.read_text(encoding="utf-8"))
    numbers, rows = zip(*training.rows(), strict=True)
    groups = pd.Series(numbers).groupby(alike_groups(rows), sort=False).agg(list)  # by their first rows
    wanted = min(MOST, max(1, round(SHARE * len(rows))), len(rows) - 1)
    taken: list[int] = []
    for group in np.random.default_rng(config.seed).permutation(groups.index).tolist():
        if len(taken) + len(groups[group]) <= wanted:
            taken += groups[group]
    smallest: list[int] = min(groups, key=len)
    if not taken and len(rows) > 2 * len(smallest):
        taken = smallest
    if not taken:
        raise UserError(
            f"{config.train_data}: não há linhas que cheguem para tirar uma parte para a validação sem que "
            "se repitam nas de treino: junte mais, ou dê um ficheiro com --val-data"
        )
    with suppress(UserError, OSError), atomic_write(kept) as path:  # a full disk only means looking again
        path.write_text(json.dumps(sorted(taken)), encoding="utf-8")
    return sorted(taken)
