"""Read training rows from JSON lines: each one is checked, a bad one is named by file and line."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, reason

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Row:
    """One example: a conversation, or bare `text`; `kind`, `table` and `fact` say what it asks, if known."""

    messages: tuple[dict[str, str], ...] = ()
    text: str = ""
    kind: str = ""
    table: str = ""
    fact: str = ""


def read_rows(path: Path) -> list[Row]:
    """The rows of the JSON-lines file `path`; raises `UserError` naming file, line and reason."""
    return [row for _, row in iterate_rows(path)]


def iterate_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of `path` one by one, each with the number of its line; raises as `read_rows` does."""
    number = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, row in _rows(path, file):
                yield number, row
    except FileNotFoundError:
        raise UserError(f"não encontro o ficheiro {path}; «farense-qlora prepare» cria os dados") from None
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {reason(error)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: não é texto UTF-8 (byte {error.start})") from None
    if not number:
        raise UserError(f"{path}: não tem nenhuma linha de dados")


def _rows(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, parse_row(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, linha {number}: JSON inválido na coluna {error.colno}") from None
        except ValueError as error:
            raise UserError(f"{path}, linha {number}: {error}") from None


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
    return value
