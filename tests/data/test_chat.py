"""Conversations to tokens, on every family of chat templates: what is learnt, after what, and up to where.

What a model of each family is to write was told by hand (`tests/chats.py`), and what inference shows it is
what transformers and mlx-lm make of the template: neither comes from the code under test.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from chats import FAMILIES, TEMPLATES, Family, tokenizer_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from farense_qlora.data.chat import Piece, encode_row, prompt_tokens
from farense_qlora.data.rows import Row, parse_row

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "conta_golos",
            "description": "FERRAMENTA: os golos marcados numa época",
            "parameters": {
                "type": "object",
                "properties": {"época": {"type": "string"}},
                "required": ["época"],
            },
        },
    }
]
CALL = {
    "id": "abc123XYZ",
    "type": "function",
    "function": {"name": "conta_golos", "arguments": {"época": "1989-90"}},
}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, thought: str = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {**message, "reasoning_content": thought} if thought else message


def row(*messages: dict[str, Any], tools: Sequence[Any] = ()) -> Row:
    return parse_row({"messages": list(messages), **({"tools": list(tools)} if tools else {})})


# Words in capitals tell who said what: only an answer and its thought may be learnt.
RULES = system("REGRAS: responde em português.")
ASKED = user("PERGUNTA um: quem foi o Hassan?")
TOLD = assistant("RESPOSTA um: foi avançado.")
ASKED_AGAIN = user("PERGUNTA dois: e o Paco?")
TOLD_AGAIN = assistant("RESPOSTA dois: foi treinador.")
ASKED_LAST = user("PERGUNTA três: e o João?")
TOLD_LAST = assistant("RESPOSTA três: foi presidente.")
THREE_TURNS = (ASKED, TOLD, ASKED_AGAIN, TOLD_AGAIN, ASKED_LAST, TOLD_LAST)
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "abc123XYZ", "name": "conta_golos", "content": "RESULTADO 44"}
OTHERS = re.compile("REGRAS|PERGUNTA|FERRAMENTA|RESULTADO")

CONVERSATIONS = {
    "one turn": row(ASKED, TOLD),
    "three turns": row(*THREE_TURNS),
    "system": row(RULES, ASKED, TOLD),
    "system, three turns": row(RULES, *THREE_TURNS),
    "empty system": row(system(""), ASKED, TOLD, ASKED_AGAIN, TOLD_AGAIN),
    "thought": row(ASKED, assistant("RESPOSTA um.", "Pensei: marcou golos.")),
    "thought in the text": row(ASKED, assistant("<think>\nPensei: marcou golos.\n</think>\n\nRESPOSTA um.")),
    "thoughts, three turns": row(
        ASKED,
        assistant("RESPOSTA um.", "Pensei um."),
        ASKED_AGAIN,
        assistant("RESPOSTA dois.", "Pensei dois,\n\ne outra vez."),
        ASKED_LAST,
        assistant("RESPOSTA três.", "Pensei três."),
    ),
    "a thought among answers without": row(
        ASKED,
        TOLD,
        ASKED_AGAIN,
        assistant("<think>Pensei dois.</think>RESPOSTA dois."),
        ASKED_LAST,
        TOLD_LAST,
    ),
    "spaces around": row(
        user("  PERGUNTA um?  "),
        assistant("  RESPOSTA um.  "),
        user("\nPERGUNTA\n"),
        assistant("\n\n RESPOSTA\n"),
    ),
    "accents and emoji": row(
        user("PERGUNTA: «coração»? e\u0301 🏆"),
        assistant("RESPOSTA: não, «ação»… e\u0301 👩‍🏫🇵🇹 – 1.º"),
        ASKED,
        TOLD,
    ),
    "a thought that is in the answer": row(ASKED, assistant("RESPOSTA: 44 golos.", "44")),
    "lines and braces": row(
        system("REGRAS: {{ responde }}\n{% if sim %}"),
        user("PERGUNTA:\n\n```\n{{ messages }}\n```"),
        assistant("RESPOSTA:\n\n    {'total': {{ 44 }}}\n\n{# nota #}\n{% endfor %}\n\n- <b>fim</b>"),
    ),
    **{
        f"answer {text!r}": row(ASKED, assistant(text), ASKED_AGAIN, TOLD_AGAIN)
        for text in ("s", "E", "end", "|>")
    },
}
WITH_TOOLS = {
    "a call": row(ASKED, CALLED, RESULT, TOLD, tools=TOOLS),
    "a call in the second turn": row(
        RULES, ASKED, TOLD, ASKED_AGAIN, CALLED, RESULT, TOLD_AGAIN, tools=TOOLS
    ),
    "tools and no call": row(ASKED, TOLD, ASKED_AGAIN, TOLD_AGAIN, tools=TOOLS),
}
HAVE_TOOLS = [name for name, family in FAMILIES.items() if family.calls]
CASES = [(name, what) for name in FAMILIES for what in CONVERSATIONS]
CASES += [(name, what) for name in HAVE_TOOLS for what in WITH_TOOLS]
families = pytest.mark.parametrize("name", FAMILIES)
with_tools = pytest.mark.parametrize("name", HAVE_TOOLS)
everywhere = pytest.mark.parametrize(("name", "what"), CASES)


@cache
def learnt(name: str, what: str) -> "list[Span]":
    return spans(encode_row(conversation(what), tokenizer_of(name)), name)


def all_learnt(name: str) -> "list[Span]":
    return [span for what in conversations_of(name) for span in learnt(name, what)]


def conversations_of(name: str) -> list[str]:
    return [*CONVERSATIONS, *(WITH_TOOLS if FAMILIES[name].calls else ())]


def template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def conversation(what: str) -> Row:
    return {**CONVERSATIONS, **WITH_TOOLS}[what]


@dataclass(frozen=True)
class Span:
    """One run of supervised tokens, what stands before it, and the number of its piece."""

    before: list[int]
    tokens: list[int]
    text: str
    piece: int


def spans(pieces: Sequence[Piece], name: str) -> list[Span]:
    """What `pieces` teach, run by run."""
    found = []
    for number, piece in enumerate(pieces):
        assert len(piece.tokens) == len(piece.supervised)
        at = 0
        for supervised, run in groupby(piece.supervised):
            start, at = at, at + len(list(run))
            if supervised:
                before, tokens = piece.tokens[:start], piece.tokens[start:at]
                found.append(Span(before, tokens, added_text(before, tokens, name), number))
    return found


def added_text(before: list[int], tokens: list[int], name: str) -> str:
    """The text that `tokens` add to that of the tokens before them."""
    tokenizer = tokenizer_of(name)
    text, whole = tokenizer.decode(before), tokenizer.decode(before + tokens)
    assert whole.startswith(text)
    return whole[len(text) :]


def answers(asked: Row) -> Iterator[tuple[int, dict[str, Any]]]:
    """The place of each answer, and it."""
    return ((k, message) for k, message in enumerate(asked.messages) if message["role"] == "assistant")


def told(message: dict[str, Any], family: Family) -> set[str]:
    """What the model may be taught to write for `message`, by hand."""
    if calls := message.get("tool_calls"):
        function = calls[0]["function"]
        arguments = json.dumps(function["arguments"], ensure_ascii=False)
        call = family.calls.format(name=function["name"], arguments=arguments, id=calls[0]["id"])
        return {call + end for end in family.call_ends}
    thought, answer = message.get("reasoning_content", ""), message["content"]
    # Around an answer the template may leave white space or not; what is in it stays.
    trimmed = (
        answer,
        answer.lstrip(),
        answer.rstrip(),
        answer.strip(),
        answer.lstrip("\n"),
        answer.strip("\n"),
    )
    texts = {family.text(text, thought) for text in trimmed}
    composed = "composed" in family.layout
    return {unicodedata.normalize("NFC", text) for text in texts} if composed else texts


def folded(messages: Sequence[dict[str, Any]], family: Family) -> list[dict[str, Any]]:
    """`messages` as the template takes them: with the system's text in the user's turn if it has no other."""
    if family.shows_system and not (family.system_at_end and messages[-1]["role"] == "tool"):
        return list(messages)
    shown, rules = [], ""
    for message in messages:
        if message["role"] == "system":
            rules = f"{message['content']}\n\n" if message["content"] else ""
        else:
            shown.append({**message, "content": rules + message["content"]})
            rules = ""
    return shown


def check(asked: Row, name: str) -> None:
    """All that must be true of what a row teaches."""
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    found = spans(encode_row(asked, tokenizer), name)
    for span, (k, message) in zip(found, answers(asked), strict=True):
        thinking = bool(message.get("reasoning_content"))
        assert span.text in told(message, family)
        assert span.before == prompt_tokens(asked.messages[:k], tokenizer, asked.tools, thinking)


def shown_by_mlx_lm(name: str, asked: Row, k: int, thinking: bool) -> list[int]:
    """What mlx-lm shows the model before the answer number `k` of the messages."""
    return tokenizer_of(name).apply_chat_template(
        folded(asked.messages[:k], FAMILIES[name]),
        tools=list(asked.tools) or None,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )


# What is learnt


@everywhere
def test_each_answer_is_learnt_once_as_the_model_is_to_write_it_to_its_end(name: str, what: str) -> None:
    texts = [span.text for span in learnt(name, what)]
    expected = [told(message, FAMILIES[name]) for _, message in answers(conversation(what))]
    assert len(texts) == len(expected)
    for text, allowed in zip(texts, expected, strict=True):
        assert text in allowed


@families
def test_nothing_that_others_said_is_learnt(name: str) -> None:
    for span in all_learnt(name):
        assert not OTHERS.search(span.text)
        assert span.text.count("RESPOSTA") <= 1  # nor another answer


@families
def test_what_is_learnt_last_is_what_makes_inference_stop(name: str) -> None:
    stops = tokenizer_of(name).eos_token_ids
    for span in all_learnt(name):
        assert [token in stops for token in span.tokens] == [False] * (len(span.tokens) - 1) + [True]


@families
def test_a_thought_that_says_nothing_is_not_learnt(name: str) -> None:
    for span in all_learnt(name):
        assert not re.search(r"(<think>|thought)\s*(</think>|<channel\|>)", span.text)


@families
def test_one_row_holds_all_answers_where_one_rendering_does(name: str) -> None:
    rows = {span.piece for span in learnt(name, "three turns")}
    assert len(rows) == (1 if FAMILIES[name].one_pass else 3)


@families
def test_a_thought_in_the_text_is_the_same_as_one_apart(name: str) -> None:
    assert learnt(name, "thought") == learnt(name, "thought in the text")


@with_tools
def test_a_call_is_the_same_with_arguments_as_json_and_without_content(name: str) -> None:
    arguments = json.dumps(CALL["function"]["arguments"])
    call = {**CALL, "function": {"name": "conta_golos", "arguments": arguments}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert spans(
        encode_row(row(ASKED, called, RESULT, TOLD, tools=TOOLS), tokenizer_of(name)), name
    ) == learnt(name, "a call")


@with_tools
def test_what_is_said_beside_a_call_is_learnt_too_or_the_row_refused(name: str) -> None:
    asked = row(ASKED, {**CALLED, "content": "RESPOSTA: vou contar."}, RESULT, TOLD, tools=TOOLS)
    try:
        first, _ = spans(encode_row(asked, tokenizer_of(name)), name)
    except ValueError:
        return
    assert first.text.count("RESPOSTA: vou contar.") == first.text.count("conta_golos") == 1


@families
def test_bare_text_is_learnt_whole_with_one_start_and_one_end(name: str) -> None:
    tokenizer, family = tokenizer_of(name), FAMILIES[name]
    (piece,) = encode_row(parse_row({"text": "Era uma vez em Faro."}), tokenizer)
    assert piece.tokens == [*tokenizer.encode("Era uma vez em Faro."), tokenizer.eos_token_id]
    assert all(piece.supervised)
    marked = f"{family.bos}Era uma vez em Faro.{family.eos}"
    (piece,) = encode_row(parse_row({"text": marked}), tokenizer)
    assert re.sub("> +", ">", tokenizer.decode(piece.tokens)) == marked
    assert all(piece.supervised)


# After what


@families
def test_before_each_answer_stands_what_the_prompt_for_it_is(name: str) -> None:
    for what in conversations_of(name):
        asked = conversation(what)
        for span, (k, message) in zip(learnt(name, what), answers(asked), strict=True):
            thinking = bool(message.get("reasoning_content"))
            assert span.before == prompt_tokens(asked.messages[:k], tokenizer_of(name), asked.tools, thinking)


@everywhere
def test_a_prompt_is_what_mlx_lm_and_transformers_show(
    name: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, tokenizer = conversation(what), tokenizer_of(name)
    if FAMILIES[name].dated:
        monkeypatch.setattr(chat_template_utils, "datetime", on_the_day_of(name))
    for k, message in answers(asked):
        thinking = bool(message.get("reasoning_content"))
        prompt = prompt_tokens(asked.messages[:k], tokenizer, asked.tools, thinking)
        assert prompt == shown_by_mlx_lm(name, asked, k, thinking)
        assert prompt == tokenizer._tokenizer.apply_chat_template(
            folded(asked.messages[:k], FAMILIES[name]),
            tools=list(asked.tools) or None,
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_dict=False,
        )


def on_the_day_of(name: str) -> type[datetime]:
    """A clock that stopped on the day which the prompts of the family say it is."""
    text = tokenizer_of(name).decode(prompt_tokens([ASKED], tokenizer_of(name)))
    forms = {
        r"\d{4}-\d\d-\d\d": "%Y-%m-%d",
        r"\d\d [A-Z][a-z]{2} \d{4}": "%d %b %Y",
        r"\d\d [A-Z][a-z]+ \d{4}": "%d %B %Y",
        r"[A-Z][a-z]+ \d\d, \d{4}": "%B %d, %Y",
    }
    day = next(datetime.strptime(m[0], form) for reg, form in forms.items() if (m := re.search(reg, text)))

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return day

    return Stopped


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.dated])
def test_the_date_in_a_prompt_is_the_same_on_any_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = prompt_tokens([ASKED], tokenizer_of(name))

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2031, 12, 24)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert prompt_tokens([ASKED], tokenizer_of(name)) == before


@pytest.mark.parametrize("name", [name for name in FAMILIES if "bos_token" in template(name)])
def test_a_text_starts_once(name: str) -> None:
    start, family = tokenizer_of(name).bos_token_id, FAMILIES[name]
    for what in conversations_of(name):
        for piece in encode_row(conversation(what), tokenizer_of(name)):
            assert piece.tokens[0] == start and piece.tokens[1] != start
            if not family.bos_a_turn and family.bos != family.eos:
                assert piece.tokens.count(start) == 1


# Nothing is lost without a word


FOLD_LATER = [
    "gemma-2",
    "gemma-3",
    "gpt-oss",
    "llama-2",
    "mistral-nemo",
    "mistral-v0.1",
    "mistral-v0.3",
    "alpaca",
]


@families
def test_a_later_system_text_goes_where_the_template_has_it_or_into_the_turn_after_it(name: str) -> None:
    tokenizer, messages = tokenizer_of(name), [ASKED, TOLD, RULES, ASKED_AGAIN]
    prompt = tokenizer.decode(prompt_tokens(messages, tokenizer))
    together = [ASKED, TOLD, user(f"{RULES['content']}\n\n{ASKED_AGAIN['content']}")]
    assert prompt.count(RULES["content"]) == 1
    assert (prompt == tokenizer.decode(prompt_tokens(together, tokenizer))) == (name in FOLD_LATER)
    check(row(*messages, TOLD_AGAIN), name)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.shows_system])
def test_a_system_text_that_the_question_repeats_is_not_lost(name: str) -> None:
    tokenizer = tokenizer_of(name)
    prompt = tokenizer.decode(prompt_tokens([system("Hassan"), user("Quem foi o Hassan?")], tokenizer))
    assert "Hassan\n\nQuem foi o Hassan?" in prompt


def test_a_word_that_the_template_takes_from_the_system_text_is_not_a_text_that_it_loses() -> None:
    messages = [system("REGRAS: responde em português. /no_think"), ASKED]
    prompt = tokenizer_of("smollm3").decode(prompt_tokens(messages, tokenizer_of("smollm3")))
    assert "REGRAS: responde em português.\n\n<|im_end|>\n<|im_start|>user\nPERGUNTA" in prompt


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.calls])
def test_tools_are_refused_where_the_template_does_not_show_them(name: str) -> None:
    named = user("PERGUNTA: o que faz conta_golos?")
    listed = FAMILIES[name].lists_tools  # and shows no call
    for messages in [[ASKED, CALLED, RESULT, TOLD], *([] if listed else [[ASKED, TOLD], [named, TOLD]])]:
        with pytest.raises(ValueError, match=r"\w"):
            encode_row(row(*messages, tools=TOOLS), tokenizer_of(name))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.calls])
def test_a_call_is_refused_where_the_template_does_not_show_it(name: str) -> None:
    if name.startswith("deepseek"):
        pytest.skip("it shows calls, but not the tools that there are")
    with pytest.raises(ValueError, match=r"\w"):
        encode_row(row(ASKED, CALLED, RESULT, TOLD), tokenizer_of(name))


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.calls])
def test_a_call_that_its_content_names_is_not_lost(name: str) -> None:
    called = {**CALLED, "content": "RESPOSTA: vou chamar conta_golos."}
    with pytest.raises(ValueError, match=r"\w"):
        encode_row(row(ASKED, called, tools=TOOLS), tokenizer_of(name))


@families
def test_an_answer_that_has_in_it_what_makes_inference_stop_is_refused(name: str) -> None:
    tokenizer = tokenizer_of(name)
    for stop in tokenizer.convert_ids_to_tokens(sorted(tokenizer.eos_token_ids)):
        for answer in (
            assistant(f"Sim{stop} ou não"),
            assistant("Sim", f"Talvez{stop}"),
            assistant(f"Sim{stop}"),
        ):
            with pytest.raises(ValueError, match=re.escape(stop)):
                encode_row(row(ASKED, answer), tokenizer)
        if FAMILIES[name].calls:
            call = {**CALL, "function": {"name": "conta_golos", "arguments": {"época": f"1989{stop}"}}}
            with pytest.raises(ValueError, match=re.escape(stop)):
                encode_row(row(ASKED, {**CALLED, "tool_calls": [call]}, tools=TOOLS), tokenizer)


# Any conversation


PARTS = [
    "<|",
    "|>",
    "<",
    ">",
    "im_",
    "end",
    "</",
    "s",
    "/s>",
    "[INST",
    "]",
    "{{",
    "}}",
    "{%",
    "%}",
    "E",
    "ok",
    "1",
]
LETTERS = st.characters(
    codec="utf-8",
    exclude_categories=["Cs", "Co", "Cn", "Cc"],
    exclude_characters="▁\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    include_characters="\n\t",
)
TEXTS = st.lists(
    st.sampled_from(PARTS) | st.text(LETTERS, max_size=8) | st.sampled_from([" ", "\n", "ção"]), min_size=1
)
SAID = TEXTS.map("".join).filter(str.strip)
TURNS = st.lists(st.tuples(SAID, SAID, st.one_of(st.just(""), SAID)), min_size=1, max_size=3)
PROVED = [
    *("alpaca", "chatml", "command-r7b", "deepseek-r1", "falcon", "gemma-2", "gpt-oss", "llama-2", "llama-3"),
    *(
        "glm-4.5",
        "mistral-v0.1",
        "mistral-v0.3",
        "olmo-2",
        "phi-3",
        "qwen2.5",
        "qwen3",
        "qwen3.5",
        "solar",
        "zephyr",
    ),
]


@pytest.mark.parametrize("name", PROVED)
@settings(derandomize=True, max_examples=25, deadline=None)
@given(rules=st.one_of(st.none(), SAID), turns=TURNS)
def test_any_conversation_is_learnt_as_inference_shows_it(
    name: str, rules: str | None, turns: list[tuple[str, str, str]]
) -> None:
    messages = [] if rules is None else [system(rules)]
    for asked, answered, thought in turns:
        messages += [user(asked), assistant(answered, thought.strip())]
    special = f"{FAMILIES[name].special} {FAMILIES[name].words} <think> </think>".split()
    assume(not any(text in value for text in special for message in messages for value in message.values()))
    check(row(*messages), name)
