"""As much of Go's text/template as Ollama's templates take, and what Ollama gives them to say."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, str]


def ollama(template: str, messages: Sequence[Message]) -> str:
    """What Ollama makes of a conversation: texts of one role in a row are joined, and `.System` has them all
    (`collate` in its template.go)."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1]["content"] += "\n\n" + message["content"]
        else:
            joined.append(dict(message))
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    turns = [{"Role": message["role"], "Content": message["content"]} for message in joined]
    data = {"System": system, "Messages": turns}
    pieces = iter(re.split(r"\{\{(.*?)\}\}", template, flags=re.DOTALL))
    return _run(*_block(pieces)[:1], data, {"$": data})


Node = Any  # text, or (action, [(test, nodes), ...])


def _block(pieces: Iterator[str]) -> tuple[list[Node], str]:
    """The nodes up to an `end` or `else`, and that word with what follows it."""
    nodes: list[Node] = []
    for text in pieces:
        nodes.append(text)
        action = next(pieces, None)
        if action is None:
            return nodes, ""
        action = action.strip()
        if action == "end" or action.startswith("else"):
            return nodes, action
        if action.startswith(("if ", "range ")):
            branches, word = [], action
            while word != "end":
                inside, following = _block(pieces)
                branches.append((word.removeprefix("else").strip(), inside))
                word = following
                assert word, "an action without an end"
            nodes.append((action.split()[0], branches))
        else:
            nodes.append(("say", action))
    return nodes, ""


def _run(nodes: list[Node], dot: Any, names: dict[str, Any]) -> str:
    said = ""
    for node in nodes:
        if isinstance(node, str):
            said += node
        elif node[0] == "say":
            name, is_set, value = node[1].partition(":=")
            if is_set:
                names[name.strip()] = _value(value, dot, names)
            else:
                said += str(_value(node[1], dot, names))
        elif node[0] == "if":
            for test, inside in node[1]:
                if not test or _value(test.removeprefix("if "), dot, names):
                    said += _run(inside, dot, dict(names))
                    break
        else:
            ((head, inside),) = node[1]
            variables, _, items = head.removeprefix("range ").rpartition(":=")
            for number, item in enumerate(_value(items, dot, names)):
                pair = zip([name.strip() for name in variables.split(",")], (number, item), strict=False)
                said += _run(inside, item, {**names, **dict(pair)})
    return said


def _value(text: str, dot: Any, names: dict[str, Any]) -> Any:
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[()]|[^\s()]+', text)
    value, rest = _call(tokens, dot, names)
    assert not rest, text
    return value


def _call(tokens: list[str], dot: Any, names: dict[str, Any]) -> tuple[Any, list[str]]:
    """A function and its arguments, or one value; and what is left."""
    functions = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "not": lambda a: not a,
        "and": lambda *all: next((a for a in all if not a), all[-1]),
        "or": lambda *all: next((a for a in all if a), all[-1]),
        "len": len,
        "slice": lambda items, *ends: items[slice(ends[0], *ends[1:] or (None,))],
        "index": lambda items, at: items[at],
    }
    values: list[Any] = []
    while tokens and tokens[0] != ")":
        token, *tokens = tokens
        if token == "(":
            value, tokens = _call(tokens, dot, names)
            assert tokens.pop(0) == ")"
            values.append(value)
        elif token in functions:
            values.append(functions[token])
        elif token[0] == '"':
            values.append(token[1:-1].replace('\\"', '"').replace("\\n", "\n"))
        elif token.isdecimal():
            values.append(int(token))
        else:
            start, *fields = token.split(".")
            value = names[start] if start else dot
            for field in filter(None, fields):
                value = value[field]
            values.append(value)
    return (values[0](*values[1:]) if callable(values[0]) else values[0]), tokens
