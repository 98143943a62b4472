"""One example of any shape that tools write, checked: conversations, questions and answers, bare text."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
# What a message may have beside them; a key that is neither known nor empty is refused, never dropped.
KEYS = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"}
# NUL, halves of characters, and controls that make a text look like another (bidirectional overrides).
FORBIDDEN = re.compile("[\x00\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One example: a conversation, or bare `text`; `kind`, `table` and `fact` say what it asks, if known.

    Messages have the keys of the OpenAI API, and `reasoning_content` for a thought. `tools` are those that
    the conversation may call. The answers among the first `learn_from` messages are read, not learnt.
    """

    messages: tuple[dict[str, Any], ...] = ()
    text: str = ""
    kind: str = ""
    table: str = ""
    fact: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    learn_from: int = 0

    def to_json(self) -> str:
        """The row as JSON that `from_json` reads."""
        return json.dumps({name: value for name, value in vars(self).items() if value}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Row":
        """The row that `to_json` wrote."""
        values: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(text).items()}
        return cls(**values)


def parse_row(value: Any, columns: Mapping[str, str] | None = None) -> Row:
    """A row of any of the `SHAPES`, or of the `columns` that say which field is the question, the answer, the
    system's text or the text (`prompt`, `completion`, `system`, `text`); raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError("cada linha tem de ser um objeto JSON")
    if columns:
        missing = [name for name in columns.values() if name not in value]
        if missing:
            raise ValueError(f"não tem a coluna «{missing[0]}»; tem: {', '.join(map(str, value))}")
        value = {ours: value[theirs] for ours, theirs in columns.items()}
    read = READERS.get(shape(value))
    if read is None:
        raise ValueError(
            "faltam os campos «messages», «prompt» e «completion», ou «text» (ou os de outro formato "
            f"conhecido); tem: {', '.join(map(str, value)) or 'nada'}; diga quais são com --columns"
        )
    row = read(value)
    if all(isinstance(value.get(key), str) for key in ("kind", "table", "fact")):  # rows that `prepare` wrote
        return replace(row, kind=value["kind"], table=value["table"], fact=value["fact"])
    return row


def shape(value: Fields) -> str:
    """The name of the first of `SHAPES` whose fields are all there; empty when none is."""
    have = {name for name, field in value.items() if field is not None}
    return next((name for name, fields in SHAPES.items() if fields <= have), "")


def _conversation(value: Fields) -> Row:
    return _row(value, _messages(value["messages"], "messages"))


def _sharegpt(value: Fields) -> Row:
    turns = value["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("«conversations» tem de ser uma lista de mensagens")
    messages = []
    for turn in turns:
        if "from" not in turn:
            messages.append(turn)
            continue
        role, other = turn["from"], set(turn) - {"from", "value"}
        if not isinstance(role, str) or role not in SHAREGPT:
            raise ValueError(f"«from» = {role!r}: os valores possíveis são {', '.join(SHAREGPT)}")
        if used := [key for key in sorted(other) if turn[key] is not None]:
            raise ValueError(f"a mensagem tem o campo «{used[0]}», que não sei usar: tire-o")
        messages.append({"role": SHAREGPT[role], "content": turn.get("value")})
    return _row(value, _messages(messages, "conversations", "value"))


def _alpaca(value: Fields) -> Row:
    asked, extra = value["instruction"], value.get("input") or ""
    if not isinstance(extra, str):
        raise ValueError("«input» tem de ser texto")
    asked = f"{_text(asked, 'instruction')}\n\n{extra}" if extra.strip() else asked
    return _exchange(value, asked, "instruction", "output")


def _prompt_completion(value: Fields) -> Row:
    asked, answered = value["prompt"], value["completion"]
    if isinstance(asked, list) and isinstance(answered, list):  # of messages, as TRL has them
        before = _messages(asked, "prompt", last="")
        messages = (*before, *_messages(answered, "completion"))
        return _row(value, messages, learn_from=len(before))
    if isinstance(answered, list):
        raise ValueError("«completion» é uma lista de mensagens e «prompt» não: têm de ser as duas")
    if asked == "":
        return Row(text=_text(answered, "completion"))  # there is only what goes on
    return _exchange(value, asked, "prompt", "completion")


def _questions(asked: str, answered: str) -> Callable[[Fields], Row]:
    return lambda value: _exchange(value, value[asked], asked, answered)


def _bare(value: Fields) -> Row:
    return Row(text=_text(value["text"], "text"))


# The fields by which a shape is known, in the order in which they are looked for, and what reads it.
SHAPES: dict[str, set[str]] = {
    "messages": {"messages"},
    "ShareGPT": {"conversations"},
    "Alpaca": {"instruction", "output"},
    "prompt e completion": {"prompt", "completion"},
    "question e answer": {"question", "answer"},
    "pergunta e resposta": {"pergunta", "resposta"},
    "text": {"text"},
}
READERS: dict[str, Callable[[Fields], Row]] = {
    "messages": _conversation,
    "ShareGPT": _sharegpt,
    "Alpaca": _alpaca,
    "prompt e completion": _prompt_completion,
    "question e answer": _questions("question", "answer"),
    "pergunta e resposta": _questions("pergunta", "resposta"),
    "text": _bare,
}


def _exchange(value: Fields, asked: Any, field: str, answer: str) -> Row:
    """A question and its answer, with the turns before them (`history`) if there are some."""
    history = value.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 for turn in history
    ):
        raise ValueError("«history» tem de ser uma lista de pares (pergunta, resposta)")
    messages: list[dict[str, Any]] = []
    for question, reply in history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    checked = [*_messages(messages, "history")] if messages else []
    checked.append({"role": "user", "content": _text(asked, field)})
    checked.append(_answered({"role": "assistant", "content": _text(value[answer], answer)}, answer))
    return _row(value, tuple(checked))


def _row(value: Fields, messages: tuple[dict[str, Any], ...], learn_from: int = 0) -> Row:
    """`messages` with the system's text and the tools that other fields of the row have."""
    if (system := value.get("system")) is not None and system != "":
        messages = ({"role": "system", "content": _text(system, "system")}, *messages)
        learn_from += 1 if learn_from else 0
    tools = value.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise ValueError("«tools» não é JSON válido") from None
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict)
        and isinstance(tool.get("function", tool), dict)
        and isinstance(tool.get("function", tool).get("name"), str)
        for tool in tools
    ):
        raise ValueError("«tools» tem de ser uma lista de funções, cada uma com «name»")
    return Row(messages, tools=tuple(_without_none(tool) for tool in tools), learn_from=learn_from)


def _messages(
    value: Any, field: str, content: str = "content", last: str = "assistant"
) -> tuple[dict[str, Any], ...]:
    """The messages in `field`, checked; the one to learn comes last."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"«{field}» tem de ser uma lista de mensagens")
    messages = [_message(message, field, content) for message in value]
    if last and messages[-1]["role"] != last:
        raise ValueError("a última mensagem tem de ser do assistente (é a que se aprende)")
    return tuple(messages)


def _message(value: Any, field: str, content: str) -> dict[str, Any]:
    role = value.get("role") if isinstance(value, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"cada mensagem de «{field}» precisa de «role»: {', '.join(ROLES)}")
    given = {key: one for key, one in value.items() if one is not None}
    for old in ("reasoning", "thinking"):  # other names of the same
        if isinstance(given.get(old), str):
            given.setdefault("reasoning_content", given.pop(old))
    if unknown := sorted(set(given) - KEYS):
        raise ValueError(f"a mensagem tem o campo «{unknown[0]}», que não sei usar: tire-o")
    message: dict[str, Any] = {"role": role}
    calls = given.get("tool_calls") or []
    text = _joined(given.get("content"), content)
    if role == "system" or calls:
        message["content"] = "" if text is None or text == "" else _text(text, content)
    else:
        message["content"] = _text(text, content)
    if calls:
        message["tool_calls"] = [_call(call) for call in calls] if isinstance(calls, list) else _call(calls)
    for key in ("tool_call_id", "name"):
        if key in given:
            message[key] = _text(given[key], key)
    if role != "assistant":
        if extra := {"reasoning_content", "tool_calls"} & {key for key, one in given.items() if one}:
            raise ValueError(f"só o assistente pode ter «{min(extra)}»")
        return message
    if given.get("reasoning_content"):
        message["reasoning_content"] = _text(given["reasoning_content"], "reasoning_content")
    return _answered(message, content)


def _answered(message: dict[str, Any], field: str) -> dict[str, Any]:
    """An answer with the thought at its start taken apart; an empty one goes."""
    thought = THOUGHT.match(message["content"])
    if thought is None:
        return message
    rest = message["content"][thought.end() :]
    if not message.get("tool_calls"):
        _text(rest, f"{field}, depois do pensamento,")
    message = {**message, "content": rest}
    if thought[1].strip():
        message.setdefault("reasoning_content", thought[1].strip())
    return message


def _joined(value: Any, field: str) -> Any:
    """Content that is a list of parts, as one text; anything else as it is."""
    if not isinstance(value, list) or not value:
        return value
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"«{field}» tem uma parte que não é texto ({kind}): só sei usar texto")
    return "".join(part["text"] for part in value)


def _call(value: Any) -> dict[str, Any]:
    """A call of a tool, with its arguments as an object."""
    call = _without_none(value) if isinstance(value, dict) else {}
    function = call.get("function", call)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("«tool_calls» tem de ser uma lista de chamadas, cada uma com «function» e «name»")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise ValueError("os argumentos de uma chamada («arguments») não são JSON válido") from None
    if not isinstance(arguments, dict):
        raise ValueError("os argumentos de uma chamada («arguments») têm de ser um objeto")
    checked = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {**checked, "id": call["id"]} if isinstance(call.get("id"), str) else checked


def _without_none(value: Any) -> Any:
    """`value` without the empty fields that a table gives every row."""
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"«{field}» tem de ser texto não vazio")
    if found := FORBIDDEN.search(value):
        raise ValueError(f"«{field}» tem o carácter U+{ord(found[0]):04X}, que não se vê: tire-o")
    return value
