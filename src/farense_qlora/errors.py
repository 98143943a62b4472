"""The one exception that users see: a sentence in Portuguese that says what, where and what to do."""

import errno
from collections.abc import Mapping
from typing import Any

_REASONS = {
    errno.ENOENT: "não existe",
    errno.EACCES: "sem permissão",
    errno.EPERM: "sem permissão",
    errno.EROFS: "o disco é só de leitura",
    errno.ENOSPC: "o disco está cheio",
    errno.EDQUOT: "a quota de disco esgotou-se",
    errno.EIO: "o disco falhou (erro de leitura ou escrita)",
    errno.ENOTDIR: "uma parte do caminho não é uma pasta",
    errno.EISDIR: "é uma pasta",
    errno.EADDRINUSE: "a porta está ocupada",
    errno.EADDRNOTAVAIL: "este endereço não é deste computador",
    errno.EEXIST: "já existe e não é uma pasta",
}
# Of what pydantic finds wrong with a value, by its name for it; those that begin alike are alike.
_INVALID = {
    "missing": "falta",
    "greater_than": "tem de ser maior do que {gt:g}",
    "greater_than_equal": "tem de ser pelo menos {ge:g}",
    "less_than": "tem de ser menor do que {lt:g}",
    "less_than_equal": "pode ser no máximo {le:g}",
    "literal_error": "os valores possíveis são {expected}",
    "extra_forbidden": "esta definição não existe",
    "string_too_short": "não pode ficar vazio",
    "too_short": "não pode ficar vazio",
    "finite_number": "tem de ser um número finito",
    "string_type": "tem de ser texto",
    "list_type": "tem de ser uma lista",
    "int": "tem de ser um número inteiro",
    "float": "tem de ser um número",
    "bool": "tem de ser true ou false",
}


class UserError(Exception):
    """Bad input (data, config, checkpoint, disk); the CLI prints it on one line and exits with code 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback, in which nothing is the user's own."""
        return [f"✗ {self}"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during what takes long: says what became of it."""

    _render_traceback_ = UserError._render_traceback_


class DiskFullError(UserError):
    """There is no room left to write; nothing saved before was touched, and trying again later may work."""


def disk_error(error: OSError, path: object) -> UserError:
    """The error to raise when `path` could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (DiskFullError if full else UserError)(f"não consigo escrever em {path}: {reason(error)}")


def reason(error: OSError) -> str:
    """Why the system refused, in Portuguese."""
    return _REASONS.get(error.errno or 0, f"erro {error.errno} do sistema")


def validation_message(error: Any) -> str:
    """The first thing that pydantic's `ValidationError` finds wrong: the field, its value, and why."""
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    name = ".".join(str(part) for part in first["loc"])
    return f"{name} = {first['input']!r}: {invalid(first)}"


def invalid(details: Mapping[str, Any]) -> str:
    """Why a value did not pass, given the details of one of pydantic's errors."""
    kind = str(details["type"])
    why = _INVALID.get(kind) or _INVALID.get(kind.partition("_")[0], "valor inválido")
    return why.format(**details.get("ctx", {})).replace(" or ", " ou ")
