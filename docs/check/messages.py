"""Every error message that the code can raise must have a row in the troubleshooting pages."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pages import ROOT, pages

SOURCE = ROOT / "src" / "farense_qlora"
HOLE = "…"
# What the server answers a request with: a status, and then the message.
# And what is wrong with a row: its line, and then the message.
ANSWERS = {"Refused", "Bad"}
# Modules whose ValueErrors reach the user inside a UserError.
WRAPPED = ("data/rows.py", "data/sources.py", "data/turns.py", "config.py", "serving/api.py")


def messages() -> dict[str, str]:
    """Each message as a pattern, with a hole for every value in it, and where it is raised."""
    trees = _trees()
    classes = {name: {name, *_subclasses(trees.values(), name)} for name in ("UserError", "ValueError")}
    functions = {
        node.name: node
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    found: dict[str, str] = {}
    for path, tree in trees.items():
        wrapped = str(path.relative_to(SOURCE)) in WRAPPED
        raised = classes["UserError"] | (classes["ValueError"] if wrapped else set())
        named = {
            ast.unparse(node.targets[0]): node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
        }
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
        for call in calls:
            for name in [part.id for part in ast.walk(call.func) if isinstance(part, ast.Name)]:
                message = call.args[1:2] if name in ANSWERS else call.args[:1] if name in raised else []
                for words in message:
                    for pattern in _patterns(named.get(ast.unparse(words), words), functions):
                        found[pattern] = f"{path.relative_to(ROOT)}:{call.lineno}"
    return found


def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def _subclasses(trees: Iterable[ast.Module], name: str) -> Iterator[str]:
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == name for base in node.bases):
                yield node.name


def _patterns(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """The texts that `node` can be; what only hands on another error's text gives none."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for inner in ast.walk(functions[name]) if name in functions else ():
            if isinstance(inner, ast.Return) and inner.value is not None:
                yield from _patterns(inner.value, functions)
        return
    if isinstance(node, ast.IfExp):
        yield from _patterns(node.body, functions)
        yield from _patterns(node.orelse, functions)
        return
    pattern = re.sub(rf"({HOLE}\s*)+", f"{HOLE} ", _flat(node)).strip()
    if len(re.findall(r"\w+", pattern)) >= 2:
        yield pattern


def _flat(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_flat(part) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _flat(node.left) + _flat(node.right)
    return HOLE


def _key(text: str) -> str:
    """What must agree: the words, and the holes among them."""
    return " ".join(re.findall(rf"\w+|{HOLE}", text.lower())) + " "


def check_messages() -> Iterator[str]:
    """Messages without a row, and rows whose message no longer exists; a row may give only the beginning."""
    raised = {_key(pattern): (pattern, where) for pattern, where in messages().items()}
    rows = {
        _key(row[1]): f"{page}:{number}"
        for page, text in pages().items()
        if page.startswith("docs/troubleshooting/")
        for number, line in enumerate(text.splitlines(), 1)
        if (row := re.match(r"\| `([^`]+)` \|", line))
    }
    for key, (pattern, where) in raised.items():
        if not key.startswith(tuple(rows)):
            yield f"{where}: falta uma linha em docs/troubleshooting/ para «{pattern}»"
    texts = (node for tree in _trees().values() for node in ast.walk(tree))
    said = {_key(_flat(node)) for node in texts if isinstance(node, ast.Constant | ast.JoinedStr)}
    for row, where in rows.items():  # some messages are handed on before they are raised
        if "/QLORA_" in where and not any(key.startswith(row) for key in {*raised, *said}):
            yield f"{where}: o código já não dá esta mensagem"
