"""Every error message that the code can raise must have a row in the troubleshooting pages."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from pages import ROOT, pages

SOURCE = ROOT / "src" / "farense_qlora"
HOLE = "…"
TOLD = {"UserError", "DiskFullError", "Refused", "Bad"}  # what users are told of an error with
# Modules whose ValueErrors reach the user inside a UserError.
WRAPPED = ("data/", "config.py", "serving/api.py")


def check_messages() -> Iterator[str]:
    """Messages without a row, and rows whose message no longer exists; a row may give only the beginning."""
    nodes = [
        (str(path.relative_to(SOURCE)), node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    ]
    rows = {
        _key(row[1]): f"{page}:{number}"
        for page, text in pages().items()
        if page.startswith("docs/troubleshooting/")
        for number, line in enumerate(text.splitlines(), 1)
        if (row := re.match(r"\| `([^`]+)` \|", line))
    }
    raised = {_key(text): (text, where) for text, where in _messages(nodes)}
    for key, (text, where) in raised.items():
        if not key.startswith(tuple(rows)):
            yield f"{where}: falta uma linha em docs/troubleshooting/ para «{text}»"
    said = {_key(text) for _, node in nodes for text in _texts(node, {})}
    for row, where in rows.items():  # some messages are handed on before they are raised
        if "/QLORA_" in where and not any(key.startswith(row) for key in {*raised, *said}):
            yield f"{where}: o código já não dá esta mensagem"


def _messages(nodes: list[tuple[str, ast.AST]]) -> Iterator[tuple[str, str]]:
    """Each message of two words or more, and where it is raised."""
    known = defaultdict(list)  # what is assigned to a name, or returned by a function of that name
    for _, node in nodes:
        if isinstance(node, ast.Assign):
            known[ast.unparse(node.targets[0])].append(node.value)
        elif isinstance(node, ast.FunctionDef):
            known[node.name] += [found.value for found in ast.walk(node) if isinstance(found, ast.Return)]
    for name, node in nodes:
        told = TOLD | {"ValueError", "BadTextError"} if name.startswith(WRAPPED) else TOLD
        if isinstance(node, ast.Call) and not told.isdisjoint(re.findall(r"\w+", ast.unparse(node.func))):
            for text in [text for argument in node.args[:2] for text in _texts(argument, known)]:
                if len(re.findall(r"\w+", text)) > 1:
                    yield text, f"src/farense_qlora/{name}:{node.lineno}"


def _texts(node: ast.AST | None, known: Mapping[str, list]) -> Iterator[str]:
    """The texts that `node` can be, with a hole for every value in them; `known` has what a name may be."""
    match node:
        case ast.Constant(value=value):
            yield str(value)
        case ast.JoinedStr(values=parts):
            yield "".join(next(_texts(part, {})) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield next(_texts(left, {})) + next(_texts(right, {}))
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*_texts(body, {}), *_texts(orelse, {}))
        case ast.Name(id=name) | ast.Call(func=ast.Name(id=name)) if name in known:
            for one in known[name]:
                yield from _texts(one, {})
        case _:
            yield HOLE


def _key(text: str) -> str:
    """What must agree: the words, and the holes among them."""
    return re.sub(rf"({HOLE} )+", f"{HOLE} ", " ".join(re.findall(rf"\w+|{HOLE}", text.lower())) + " ")
