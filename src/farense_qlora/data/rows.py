"""One example of any shape that tools write, checked: conversations, questions and answers, bare text."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

ROLES = ("system", "user", "assistant", "tool")
# What a message may have; another key that is not empty is refused, never dropped.
KEYS = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"}
# NUL, halves of characters, and controls that make a text look like another (bidirectional overrides).
FORBIDDEN = re.compile("[\x00\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
NO_CALLS = "«tool_calls» tem de ser uma lista de chamadas, cada uma com «function» e «name»"
SHAREGPT = {"human": "user", "gpt": "assistant", "observation": "tool"} | {role: role for role in ROLES}

Fields = Mapping[str, Any]
Message = dict[str, Any]


# The kinds of question and the tables of facts as people call them.
LABELS = {
    "facto": "um facto",
    "conta": "conta-me",
    "sim-nao": "sim ou não",
    "comparacao": "comparação",
    "conversa": "conversa",
    "sem-resposta": "sem resposta",
    "club": "clube",
    "coaches": "treinadores",
    "cups": "taças",
    "honours": "palmarés",
    "opponents": "adversários",
    "phases": "fases",
    "presidents": "presidentes",
    "seasons": "épocas",
}


@dataclass(frozen=True)
class Row:
    """One example: a conversation, or bare `text`; `kind`, `table` and `fact` say what it asks, if known, and
    `sentence` is its first answer as a whole sentence, where it is none.

    Messages have the keys of the OpenAI API, and `reasoning_content` for a thought. `tools` are those that
    the conversation may call. The answers among the first `learn_from` messages are read, not learnt.
    """

    messages: tuple[Message, ...] = ()
    text: str = ""
    kind: str = ""
    table: str = ""
    fact: str = ""
    sentence: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    learn_from: int = 0

    def in_style(self, answer_style: str) -> "Row":
        """The row with its first answer "short", as it is, or as a whole sentence, where it has one."""
        if answer_style == "short" or not self.sentence:
            return self
        first = next(k for k, message in enumerate(self.messages) if message["role"] == "assistant")
        answer = {**self.messages[first], "content": self.sentence}
        return replace(self, messages=(*self.messages[:first], answer, *self.messages[first + 1 :]))

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
    system's text or the text (`pergunta`, `resposta`, `system`, `text`); raises `ValueError`.

    >>> parse_row({"pergunta": "Quem treinou?", "resposta": "Paco Fortes."}).messages[1]
    {'role': 'assistant', 'content': 'Paco Fortes.'}
    """
    if not isinstance(value, dict):
        raise ValueError("cada linha tem de ser um objeto JSON")
    if columns:
        missing = [name for name in columns.values() if name not in value]
        if missing:
            raise ValueError(f"não tem a coluna «{missing[0]}»; tem: {', '.join(map(str, value))}")
        value = {ours: value[theirs] for ours, theirs in columns.items()}
    read = shape(value)
    if read is None:
        raise ValueError(
            "faltam os campos «messages», «prompt» e «completion», ou «text» (ou os de outro formato "
            f"conhecido); tem: {', '.join(map(str, value)) or 'nada'}; diga quais são com --columns"
        )
    row = read(value)
    ours = {key: value.get(key) for key in ("kind", "table", "fact")}
    if not all(isinstance(one, str) for one in ours.values()):
        return row
    sentence = value.get("sentence")
    return replace(row, **ours, sentence=sentence if isinstance(sentence, str) else "")


def shape(value: Fields) -> "Reader | None":
    """What reads the first of `SHAPES` whose fields are all there; None when there is none."""
    have = {name for name, field in value.items() if field is not None}
    return next((read for fields, read in SHAPES if fields <= have), None)


def _sharegpt(value: Fields) -> Row:
    turns = _list(value["conversations"], dict, "«conversations» tem de ser uma lista de mensagens")
    messages = [_turn(turn) if "from" in turn else turn for turn in turns]
    return _row(value, _messages(messages, "conversations", "value"))


def _turn(turn: Fields) -> Message:
    role = turn["from"]
    if not isinstance(role, str) or role not in SHAREGPT:
        raise ValueError(f"«from» = {role!r}: os valores possíveis são {', '.join(SHAREGPT)}")
    _refuse_others(turn, {"from", "value"})
    return {"role": SHAREGPT[role], "content": turn.get("value")}


def _alpaca(value: Fields) -> Row:
    extra = value.get("input") or ""
    if not isinstance(extra, str):
        raise ValueError("«input» tem de ser texto")
    if extra.strip():
        value = {**value, "instruction": f"{_text(value['instruction'], 'instruction')}\n\n{extra}"}
    return _exchange(value, "instruction", "output")


def _prompt_completion(value: Fields) -> Row:
    asked, answered = value["prompt"], value["completion"]
    if isinstance(asked, list) and isinstance(answered, list):  # of messages, as TRL has them
        before = _messages(asked, "prompt")
        return _row(value, before + _messages(answered, "completion"), learn_from=len(before))
    if isinstance(answered, list):
        raise ValueError("«completion» é uma lista de mensagens e «prompt» não: têm de ser as duas")
    if asked == "":
        return Row(text=_text(answered, "completion"))  # there is only what goes on
    return _exchange(value, "prompt", "completion")


def _exchange(value: Fields, asked: str, answered: str) -> Row:
    """A question and its answer, in these fields, after the turns that `history` has."""
    wrong = "«history» tem de ser uma lista de pares (pergunta, resposta)"
    history: list[Message] = []
    for turn in _list(value.get("history") or [], list | tuple, wrong):
        if len(turn) != 2:
            raise ValueError(wrong)
        history += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    before = _messages(history, "history") if history else ()
    question = {"role": "user", "content": _text(value[asked], asked)}
    answer = {"role": "assistant", "content": _text(value[answered], answered)}
    return _row(value, (*before, question, _without_thought(answer, answered)))


Reader = Callable[[Fields], Row]
# The fields by which a shape is known, in the order in which they are looked for, and what reads it.
SHAPES: list[tuple[set[str], Reader]] = [
    ({"messages"}, lambda value: _row(value, _messages(value["messages"], "messages"))),
    ({"conversations"}, _sharegpt),
    ({"instruction", "output"}, _alpaca),
    ({"prompt", "completion"}, _prompt_completion),
    ({"question", "answer"}, lambda value: _exchange(value, "question", "answer")),
    ({"pergunta", "resposta"}, lambda value: _exchange(value, "pergunta", "resposta")),
    ({"text"}, lambda value: Row(text=_text(value["text"], "text"))),
]


def _row(value: Fields, messages: tuple[Message, ...], learn_from: int = 0) -> Row:
    """`messages`, the last of which is learnt, with the system's text and the tools of other fields."""
    if messages[-1]["role"] != "assistant":
        raise ValueError("a última mensagem tem de ser do assistente (é a que se aprende)")
    if (system := value.get("system")) is not None and system != "":
        messages = ({"role": "system", "content": _text(system, "system")}, *messages)
        learn_from += 1 if learn_from else 0
    wrong = "«tools» tem de ser uma lista de funções, cada uma com «name»"
    tools = _list(_json(value.get("tools") or [], "«tools» não é JSON válido"), dict, wrong)
    for tool in tools:
        _function(tool, wrong)
    return Row(messages, tools=tuple(_without_none(tool) for tool in tools), learn_from=learn_from)


def _messages(value: Any, field: str, content: str = "content") -> tuple[Message, ...]:
    """The messages in `field`, checked."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"«{field}» tem de ser uma lista de mensagens")
    return tuple(_message(message, field, content) for message in value)


def _message(value: Any, field: str, content: str) -> Message:
    role = value.get("role") if isinstance(value, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"cada mensagem de «{field}» precisa de «role»: {', '.join(ROLES)}")
    given = {key: one for key, one in value.items() if one is not None}
    for old in ("reasoning", "thinking"):  # other names of the same
        if isinstance(given.get(old), str):
            given.setdefault("reasoning_content", given.pop(old))
    _refuse_others(given, KEYS)
    calls = given.get("tool_calls") or []
    text = _joined(given.get("content"), content)
    may_be_empty = role == "system" or calls
    message: Message = {
        "role": role,
        "content": "" if may_be_empty and text in (None, "") else _text(text, content),
    }
    if calls:
        message["tool_calls"] = [_call(call) for call in _list(calls, dict, NO_CALLS)]
    for key in ("tool_call_id", "name", "reasoning_content"):
        if given.get(key):
            message[key] = _text(given[key], key)
    if role == "assistant":
        return _without_thought(message, content)
    if wrong := [key for key in ("reasoning_content", "tool_calls") if key in message]:
        raise ValueError(f"só o assistente pode ter «{wrong[0]}»")
    return message


def _refuse_others(given: Fields, known: set[str]) -> None:
    """Raise `ValueError` for a field that is not empty and not `known`."""
    if others := sorted(key for key in given.keys() - known if given[key] is not None):
        raise ValueError(f"a mensagem tem o campo «{others[0]}», que não sei usar: tire-o")


def _without_thought(message: Message, field: str) -> Message:
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


def _call(value: Fields) -> dict[str, Any]:
    """A call of a tool, with its arguments as an object."""
    call = _without_none(value)
    function = _function(call, NO_CALLS)
    wrong = "os argumentos de uma chamada («arguments») não são JSON válido"
    arguments = _json(function.get("arguments", {}) or {}, wrong)
    if not isinstance(arguments, dict):
        raise ValueError("os argumentos de uma chamada («arguments») têm de ser um objeto")
    checked = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {**checked, "id": call["id"]} if isinstance(call.get("id"), str) else checked


def _function(value: Fields, wrong: str) -> Fields:
    """The function that a tool or a call names; raises `ValueError` that says what is `wrong`."""
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(wrong)
    return function


def _json(value: Any, wrong: str) -> Any:
    """`value`, or what it says as JSON when it is text; raises `ValueError` that says what is `wrong`."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError(wrong) from None


def _list(value: Any, of: Any, wrong: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(one, of) for one in value):
        raise ValueError(wrong)
    return value


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
