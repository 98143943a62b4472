"""Rows of every shape, hostile ones too: each is read as what it is, or refused with its reason."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farense_qlora.data.rows import Row, parse_row

ROW = Row(({"role": "user", "content": "Foi?"}, {"role": "assistant", "content": "Sim."}))
ASKED, ANSWERED = ROW.messages
CALL = {"id": "1", "type": "function", "function": {"name": "ver", "arguments": '{"ano": 1990}'}}
TOOL = {"type": "function", "function": {"name": "ver", "parameters": {"type": "object", "strict": None}}}

SHAPES: dict[str, dict[str, Any]] = {
    "messages": {"messages": [ASKED, ANSWERED]},
    "messages of parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Foi?"}]}, ANSWERED]
    },
    "messages with empty fields": {"messages": [{**ASKED, "tool_calls": None, "name": None}, ANSWERED]},
    "prompt and completion": {"prompt": "Foi?", "completion": "Sim."},
    "ShareGPT": {"conversations": [{"from": "human", "value": "Foi?"}, {"from": "gpt", "value": "Sim."}]},
    "ShareGPT with roles": {"conversations": [ASKED, ANSWERED]},
    "Alpaca": {"instruction": "Foi?", "output": "Sim."},
    "Alpaca with an empty input": {"instruction": "Foi?", "input": "", "output": "Sim."},
    "question and answer": {"question": "Foi?", "answer": "Sim."},
    "pergunta e resposta": {"pergunta": "Foi?", "resposta": "Sim.", "id": 7},
    "with fields that say nothing here": {"prompt": "Foi?", "completion": "Sim.", "kind": None, "table": "x"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_question_and_its_answer_in_every_shape(shape: str) -> None:
    read = parse_row(SHAPES[shape])
    assert (read.messages, read.text, read.kind, read.table) == (ROW.messages, "", "", "")


def test_what_else_the_shapes_have_is_kept() -> None:
    assert parse_row({"text": "Era uma vez."}) == Row(text="Era uma vez.")
    assert parse_row({"prompt": "", "completion": "Era uma vez."}) == Row(text="Era uma vez.")
    asked = parse_row({"instruction": "Traduz.", "input": "Olá", "output": "Hello", "system": "Sê breve."})
    assert [m["content"] for m in asked.messages] == ["Sê breve.", "Traduz.\n\nOlá", "Hello"]
    later = parse_row({"instruction": "E?", "output": "Não.", "history": [["Foi?", "Sim."]]})
    assert [m["content"] for m in later.messages] == ["Foi?", "Sim.", "E?", "Não."]
    trl = parse_row({"prompt": [ASKED, ANSWERED, ASKED], "completion": [ANSWERED]})
    assert len(trl.messages) == 4 and trl.learn_from == 3
    ours = parse_row({"messages": [ASKED, ANSWERED], "kind": "facto", "table": "cups", "fact": "cups/1"})
    assert (ours.kind, ours.table, ours.fact) == ("facto", "cups", "cups/1")


def test_calls_their_results_and_tools_are_kept() -> None:
    result = {"role": "tool", "content": "1.º", "tool_call_id": "1", "name": "ver"}
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    read = parse_row({"messages": [ASKED, call, result, ANSWERED], "tools": json.dumps([TOOL])})
    assert read.messages[1]["tool_calls"] == [
        {"type": "function", "function": {"name": "ver", "arguments": {"ano": 1990}}, "id": "1"}
    ]
    assert read.messages[2] == result
    assert read.tools == (
        {"type": "function", "function": {"name": "ver", "parameters": {"type": "object"}}},
    )
    assert Row.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    "answer",
    [
        {"content": "Sim.", "reasoning_content": "Ora."},
        {"content": "Sim.", "reasoning": "Ora."},
        {"content": "Sim.", "thinking": "Ora."},
        {"content": "<think>\nOra.\n</think>\n\nSim."},
    ],
)
def test_a_thought_is_told_from_the_answer(answer: dict[str, str]) -> None:
    (_, said) = parse_row({"messages": [ASKED, {"role": "assistant", **answer}]}).messages
    assert said == {"role": "assistant", "content": "Sim.", "reasoning_content": "Ora."}


def test_an_empty_thought_is_none() -> None:
    row = parse_row({"prompt": "Foi?", "completion": "<think>\n\n</think>\n\nSim."})
    assert row.messages == ROW.messages


def test_columns_are_what_they_are_said_to_be() -> None:
    columns = {"pergunta": "Q", "resposta": "A"}
    assert parse_row({"Q": "Foi?", "A": "Sim.", "text": "outra"}, columns) == ROW
    with pytest.raises(ValueError, match="não tem a coluna «A»; tem: Q"):
        parse_row({"Q": "Foi?"}, columns)
    for empty in ({"Q": "Foi?", "A": ""}, {"Q": "", "A": "Sim."}):  # a question too: no text to go on with
        with pytest.raises(ValueError, match=r"^«(pergunta|resposta)» tem de ser texto não vazio"):
            parse_row(empty, columns)


def answer(content: Any) -> dict[str, Any]:
    return {"prompt": "Foi?", "completion": content}


def said(**message: Any) -> dict[str, Any]:
    return {"messages": [ASKED, {**ANSWERED, **message}]}


REFUSED: dict[str, tuple[Any, str]] = {
    "a list": ([1, 2], "objeto JSON"),
    "a number": (3, "objeto JSON"),
    "no field we know": ({"a": "Foi?"}, "faltam os campos .*tem: a; diga quais"),
    "a number for text": ({"prompt": 3, "completion": "Sim."}, "«prompt» tem de ser texto"),
    "a number for an answer": (answer(3), "«completion» tem de ser texto"),
    "messages for half of a row": (answer([ANSWERED]), "«completion» é uma lista"),
    "an empty answer": (answer(""), "«completion» tem de ser texto não vazio"),
    "an answer of blanks": (answer(" \n\t"), "texto não vazio"),
    "a thought and no answer": (answer("<think>Ora.</think> "), "depois do pensamento"),
    "no messages": ({"messages": []}, "lista de mensagens"),
    "messages that are text": ({"messages": "Foi?"}, "lista de mensagens"),
    "a message that is text": ({"messages": ["Foi?"]}, "role"),
    "an unknown role": ({"messages": [{"role": "robot", "content": "Sim."}]}, "role"),
    "a role that is a list": ({"messages": [{"role": ["user"], "content": "Sim."}]}, "role"),
    "no answer at the end": ({"messages": [ASKED]}, "última mensagem"),
    "an unknown speaker": ({"conversations": [{"from": "bot", "value": "Sim."}]}, "«from» = 'bot'"),
    "an empty turn": ({"conversations": [{"from": "gpt", "value": ""}]}, "«value» tem de ser texto"),
    "a field of a message that nobody knows": (said(weight=0), "«weight», que não sei usar"),
    "a field of a turn that nobody knows": (
        {"conversations": [{"from": "gpt", "value": "Sim.", "loss": False}]},
        "«loss», que não sei usar",
    ),
    "a picture": (said(content=[{"type": "image_url", "image_url": "x"}]), "não é texto .image_url"),
    "arguments that are no JSON": (said(tool_calls=[{"function": {"name": "f", "arguments": "{"}}]), "JSON"),
    "a call that is in no list": (said(tool_calls={"name": "f"}), "lista de chamadas"),
    "a call without a name": (said(tool_calls=[{"function": {}}]), "«function» e «name»"),
    "a thought of the user's": (
        {"messages": [{**ASKED, "reasoning_content": "x"}, ANSWERED]},
        "só o assistente",
    ),
    "tools that are text": ({"prompt": "Foi?", "completion": "Sim.", "tools": "ver"}, "«tools» não é JSON"),
    "a history that is text": ({"instruction": "Foi?", "output": "Sim.", "history": "x"}, "«history»"),
    "NUL": (answer("Sim\x00."), r"U\+0000"),
    "a bidirectional override": (answer("Sim\u202e."), r"U\+202E"),
    "half a character": (answer("Sim\ud83d."), r"U\+D83D"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_hostile_row_is_refused_with_its_reason(why: str) -> None:
    value, reason = REFUSED[why]
    with pytest.raises(ValueError, match=reason):
        parse_row(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "messages", "conversations", "prompt", "completion", "instruction", "input", "output", "question",
    "answer", "pergunta", "resposta", "text", "system", "history", "tools", "kind", "table", "fact",
)  # fmt: skip
MESSAGE = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "reasoning_content", "name", "from", "value"]),
    st.sampled_from(["user", "assistant", "tool", "gpt"]) | JSON,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(MESSAGE, max_size=3)) | JSON)
def test_whatever_a_row_is_it_is_read_or_refused_in_words(value: Any) -> None:
    try:
        row = parse_row(value)
    except ValueError as error:
        assert str(error)
        return
    assert bool(row.messages) != bool(row.text)
    assert not row.messages or row.messages[-1]["role"] == "assistant"
    assert all(isinstance(message["content"], str) for message in row.messages)
    assert Row.from_json(row.to_json()) == row
    row.to_json().encode("utf-8")
