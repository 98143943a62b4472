"""Read training rows from JSON lines or a dataset: each is checked, a bad one is named by file and line."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import HOME
from ..errors import UserError, reason
from ..files import sha256, whole_file

ROLES = ("system", "user", "assistant")
# NUL, halves of characters, and controls that make a text look like another (bidirectional overrides).
FORBIDDEN = re.compile("[\x00\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Row:
    """One example: a conversation, or bare `text`; `kind`, `table` and `fact` say what it asks, if known."""

    messages: tuple[dict[str, str], ...] = ()
    text: str = ""
    kind: str = ""
    table: str = ""
    fact: str = ""


def read_rows(path: Path, skip_bad: bool = False) -> list[Row]:
    """The rows of `path`; raises `UserError` as `iterate_rows` does."""
    return [row for _, row in iterate_rows(path, skip_bad)]


def iterate_rows(path: Path, skip_bad: bool = False) -> Iterator[tuple[int, Row]]:
    """The rows of `path` one by one, each with its number: a file of JSON lines, or a dataset of `datasets`
    (a folder, or an id of the hub), of which the split "train" is taken.

    A bad row raises `UserError` naming file, line and reason; with `skip_bad` it goes, with its reason, to a
    file beside this one (`rejected`), and the next is read. Raises `UserError` too when no row is left.
    """
    good, bad = 0, []
    try:
        for number, value in _json_lines(path) if path.is_file() else _dataset_rows(path):
            try:
                if isinstance(value, ValueError):
                    raise value
                row = parse_row(value)
            except ValueError as error:
                if not skip_bad:
                    raise UserError(f"{path}, linha {number}: {error}") from None
                bad.append({"line": number, "reason": str(error)})
                continue
            good += 1
            yield number, row
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {reason(error)}") from None
    if bad:
        with whole_file(rejected(path)) as partial:
            partial.write_text(
                "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in bad), encoding="utf-8"
            )
    if not good:
        raise UserError(f"{path}: não tem nenhuma linha de dados" + (" que sirva" if bad else ""))


def rejected(path: Path) -> Path:
    """Where the bad rows of `path` are listed."""
    return path.with_name(f"{path.stem}.rejected.jsonl")


def fingerprint(path: Path) -> str:
    """What changes when the rows of `path` do; raises `UserError` if there are none."""
    return sha256(path) if path.is_file() else str(_dataset(path)._fingerprint)


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The value in each line that is not blank, or the `ValueError` that says what is wrong with it."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                try:
                    yield number, _parse(text)
                except ValueError as error:
                    yield number, error


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8").rstrip(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(f"não é texto UTF-8 (byte {error.start + 1})") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"JSON inválido na coluna {error.colno}") from None
    except RecursionError:
        raise ValueError("JSON com demasiados níveis") from None
    except RepeatedKeyError:
        raise
    except ValueError:  # a number of thousands of digits
        raise ValueError("JSON com um número que não se consegue ler") from None


class RepeatedKeyError(ValueError):
    """An object has two values under one key, and nobody knows which was meant."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise RepeatedKeyError(f"a chave «{again}» aparece duas vezes")
    return values


def _dataset_rows(path: Path) -> Iterator[tuple[int, Any]]:
    yield from enumerate(_dataset(path), start=1)


def _dataset(path: Path) -> Any:
    """The dataset in the folder `path`, or the one on the hub that is called as `path` is in the project's
    folder, "owner/name", when that is not there."""
    name = path.relative_to(HOME).parts if path.is_relative_to(HOME) else ()
    if not path.is_dir() and (path.suffix or len(name) != 2):
        raise UserError(f"não encontro o ficheiro {path}; «farense-qlora prepare» cria os dados")
    from datasets import DatasetDict, load_dataset, load_from_disk

    try:
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            data = load_from_disk(str(path))
            return data["train"] if isinstance(data, DatasetDict) else data
        return load_dataset(str(path) if path.is_dir() else "/".join(name), split="train")
    except Exception as error:  # the library and the hub's client raise a dozen unrelated types
        why = " ".join(str(error).split())
        raise UserError(f"não consigo ler o conjunto de dados {path}: {why}") from None


def parse_row(value: Any) -> Row:
    """A row of any of the three forms (messages, prompt + completion, text); raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError("cada linha tem de ser um objeto JSON")
    kind, table, fact = (str(value.get(key, "")) for key in ("kind", "table", "fact"))
    if "messages" in value:
        return Row(_messages(value["messages"]), "", kind, table, fact)
    if "prompt" in value and "completion" in value:
        turns = [("user", value["prompt"]), ("assistant", value["completion"])]
        return Row(
            _messages([{"role": role, "content": text} for role, text in turns]), "", kind, table, fact
        )
    if "text" in value:
        return Row((), _text(value["text"], "text"), kind, table, fact)
    raise ValueError("faltam os campos «messages», «prompt» e «completion», ou «text»")


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("«messages» tem de ser uma lista de mensagens")
    messages = []
    for message in value:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(f"cada mensagem precisa de «role»: {', '.join(ROLES)}")
        messages.append({"role": message["role"], "content": _text(message.get("content"), "content")})
    if messages[-1]["role"] != "assistant":
        raise ValueError("a última mensagem tem de ser do assistente (é a que se aprende)")
    return tuple(messages)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"«{field}» tem de ser texto não vazio")
    if found := FORBIDDEN.search(value):
        raise ValueError(f"«{field}» tem o carácter U+{ord(found[0]):04X}, que não se vê: tire-o")
    return value
