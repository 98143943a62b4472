"""A command line that speaks Portuguese: argparse whose help and errors have no English in them."""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from ..errors import UserError

# What argparse says (Python 3.11 to 3.14), and how we say it.
_ERRORS = [
    (r"unrecognized arguments: (.+)", r"argumento desconhecido: \1"),
    (r"the following arguments are required: (.+)", r"falta indicar: \1"),
    (r"argument (.+?): expected .*argument.*", r"\1: falta o valor"),
    (r"argument (.+?): ignored explicit argument .+", r"\1: não leva valor"),
    (r"argument (.+?): not allowed with argument (.+)", r"\1 não se pode usar com \2"),
    (r"argument (.+?): invalid int value: '(.*)'", r"\1: «\2» não é um número inteiro"),
    (r"argument (.+?): invalid _number value: '(.*)'", r"\1: «\2» não é um número"),
    (r"argument (.+?): invalid choice: '(.*)' \(choose from (.+)\)", r"\1: «\2» não existe; há \3"),
]


class Parser(argparse.ArgumentParser):
    """An argument parser in Portuguese; bad arguments raise `UserError`."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, add_help=False, allow_abbrev=False, formatter_class=_Formatter)
        self._positionals.title, self._optionals.title = "argumentos", "opções"
        self.add_argument("-h", "--help", action="help", help="mostra esta ajuda e termina")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore
        """As argparse does, but what a command does not know is an error of its own, with its help."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [name.lstrip("-") for name in self._option_string_actions]
            typed = unknown[0].partition("=")[0].lstrip("-")
            near = get_close_matches(typed, known, 1)
            near = near or [name for name in known if "".join(word[:1] for word in name.split("-")) == typed]
            hint = f"; quis dizer --{near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` with argparse's `message`, translated, and where help is."""
        raise UserError(f"{in_portuguese(message)} (ajuda: {self.prog} --help)")


def in_portuguese(message: str) -> str:
    """An error message of argparse, translated."""
    for pattern, translation in _ERRORS:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return found.expand(translation).replace("'", "")
    return "argumentos inválidos"


class _Formatter(argparse.HelpFormatter):
    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, "uso: " if prefix is None else prefix)
