"""Conversations to tokens: each answer after exactly what inference shows before it, to what makes it stop.

A prompt is what the chat template writes when it is the model's turn, and an answer is what the template adds
to it, told apart as text: where it adds the answer to another text than the prompt (a system text that moves
to the last turn, thoughts that earlier turns lose), the answer alone is taken, behind the prompt. Nobody
counts the tokens of one rendering to find a place in another.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any

from .rows import Row

# Templates that write the date of today get this one, or what was trained would not be what is asked.
TODAY = datetime(2026, 1, 1)
# For a base model that has none: what is said, a line each.
PLAIN = (
    "{% for message in messages %}{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
)
ROWS_A_BATCH = 512
# Stand in for a question and its answer, to see what a template writes around them.
QUESTION, ANSWER = "\ue000\ue001", "\ue002\ue003"

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Piece:
    """What one forward pass learns from a row: `tokens`, and which of them are `supervised`.

    `folded`: the template takes no system text, so that it stands in the user's turn.
    """

    tokens: list[int]
    supervised: list[bool]
    folded: bool = False


def prompt_tokens(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] = (), thinking: bool = False
) -> list[int]:
    """The conversation so far as the model sees it when it is its turn to answer, with its thoughts or
    without; the one function that training, evaluation, answers, server and exports take prompts from.

    Raises `ValueError`, with the reason, when the model's template cannot say it.
    """
    return _ids([prompt_text(messages, tokenizer, tools, thinking)], tokenizer)[0]


def prompt_text(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] = (), thinking: bool = False
) -> str:
    """The text of `prompt_tokens`; raises as it does."""
    return _prompt([dict(message) for message in messages], tokenizer, tools, thinking)[0]


def taken(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] = (), thinking: bool = False
) -> list[dict[str, Any]]:
    """`messages` as the template takes them and makes the prompt of; raises as `prompt_tokens` does."""
    return _prompt([dict(message) for message in messages], tokenizer, tools, thinking)[1]


def question_tokens(row: Row, tokenizer: Any) -> list[int]:
    """The prompt that the last answer of `row` is learnt after; raises as `prompt_tokens` does."""
    thinking = bool(row.messages[-1].get("reasoning_content"))
    return prompt_tokens(row.messages[:-1], tokenizer, row.tools, thinking)


def spoken(text: str, tokenizer: Any) -> str:
    """What a person is to hear of an answer: neither its thought nor what the template writes around it."""
    lead, tail = around(tokenizer)
    for mark in (_thought_marks(tokenizer)[1], lead):
        if mark and mark in text:
            text = text.rpartition(mark)[2].lstrip()
    return text.rstrip().removesuffix(tail).rstrip() if tail else text


def around(tokenizer: Any) -> tuple[str, str]:
    """What answers of this model begin and end with that a person is not to hear, mostly nothing."""
    prompt, asked = _prompt([{"role": "user", "content": QUESTION}], tokenizer, (), False)
    answer = _answer(prompt, asked, {"role": "assistant", "content": ANSWER}, tokenizer, (), False)
    lead, tail = answer.split(ANSWER)
    for stop in _stops(tokenizer):
        tail = tail.removesuffix(stop)
    return lead.strip(), tail.strip()


def encode_row(row: Row, tokenizer: Any) -> list[Piece]:
    """The pieces of `row`: one with all its answers where one pass can hold them truly, else one an answer.

    Raises `ValueError`, with the reason, for what cannot be made true.
    """
    (pieces,) = encode_rows([row], tokenizer)
    if isinstance(pieces, ValueError):
        raise pieces
    return pieces


def encode_rows(rows: Iterator[Row] | Sequence[Row], tokenizer: Any) -> Iterator[list[Piece] | ValueError]:
    """`encode_row` of each of `rows`, or the error that it raises; many at once, which is quick."""
    rows = iter(rows)
    while batch := list(islice(rows, ROWS_A_BATCH)):
        turns = [_turns(row, tokenizer) for row in batch]
        texts = [
            text
            for some in turns
            if not isinstance(some, ValueError)
            for turn in some
            for text in (turn.prompt, turn.prompt + turn.answer)
        ]
        tokens = iter(_ids(texts, tokenizer))
        for row, some in zip(batch, turns, strict=True):
            if isinstance(some, ValueError):
                yield some
            elif row.text:
                yield [_text(row.text, tokenizer)]
            else:
                yield _pieces([(turn, next(tokens), next(tokens)) for turn in some], tokenizer)


@dataclass(frozen=True)
class Turn:
    """An answer, to its end, and all that stands before it; in the end they are one text."""

    prompt: str
    answer: str
    folded: bool


def _turns(row: Row, tokenizer: Any) -> list[Turn] | ValueError:
    """The answers of `row` that are to be learnt, in order; none of a bare text."""
    messages, turns = [dict(message) for message in row.messages], []
    try:
        for k, message in enumerate(messages):
            if message["role"] == "assistant" and k >= row.learn_from:
                thinking = bool(message.get("reasoning_content"))
                prompt, asked = _prompt(messages[:k], tokenizer, row.tools, thinking)
                answer = _answer(prompt, asked, message, tokenizer, row.tools, thinking)
                turns.append(Turn(prompt, answer, len(asked) < k))
    except ValueError as error:
        return error
    return turns


def _pieces(turns: Sequence[tuple[Turn, list[int], list[int]]], tokenizer: Any) -> list[Piece]:
    """Join answers whose prompts go on where the last one ended."""
    pieces: list[Piece] = []
    for turn, prompt, whole in turns:
        answer = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt:  # the first letters would join the last token of the prompt
            answer = _continuation(turn.answer, tokenizer)
        last = pieces[-1] if pieces else None
        if last and prompt[: len(last.tokens)] == last.tokens:
            before = last.supervised + [False] * (len(prompt) - len(last.tokens))
            pieces.pop()
        else:
            before = [False] * len(prompt)
        pieces.append(Piece(prompt + answer, before + [True] * len(answer), turn.folded))
    return pieces


def _continuation(text: str, tokenizer: Any) -> list[int]:
    """The tokens of `text` where it does not begin a text; a special token before it sees to that."""
    found = []
    # After a special token some tokenizers add a space, or take the white space that is there.
    for anchor in (tokenizer.eos_token, QUESTION):
        before, whole = _ids([anchor, anchor + text], tokenizer)
        if whole[: len(before)] == before:
            found.append(whole[len(before) :])
            if tokenizer.decode(whole) == tokenizer.decode(before) + text:
                return found[-1]
    return found[0]


def _text(text: str, tokenizer: Any) -> Piece:
    """Bare text, learnt from its start to its end, each written once."""
    tokens = list(tokenizer.encode(text))
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    if start is not None and tokens[:2] == [start, start]:
        tokens = tokens[1:]
    while end is not None and tokens[-1:] == [end]:
        tokens = tokens[:-1]
    tokens = [*tokens, end]
    return Piece(tokens, [True] * len(tokens))


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    # Of a wrapper of mlx-lm's the tokenizer inside, which takes many texts.
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    ids: list[list[int]] = inner(texts, add_special_tokens=False)["input_ids"]
    return ids


def _prompt(
    messages: list[dict[str, Any]], tokenizer: Any, tools: Sequence[Any], thinking: bool
) -> tuple[str, list[dict[str, Any]]]:
    """The prompt, and the messages that the template made it of: as they are or, when it does not take the
    system's texts, with each of them in the user's turn that follows."""
    refused = lost = ""
    for asked in _ways(messages):
        try:
            text = _render(asked, tokenizer, tools, thinking, prompt=True)
        except Exception as error:  # a template is a program: what it raises is anything
            refused = refused or " ".join(str(error).split())
            continue
        missing = _lost(asked, tools, tokenizer, thinking)
        if not missing:
            return text, asked
        lost = lost or missing
    raise ValueError(
        f"o modelo de conversa (chat template) deixa de fora {lost}"
        if lost
        else f"o modelo não aceita esta conversa ({refused})"
    )


def _ways(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """`messages` as they can be put to a template: calls with arguments as objects or as JSON, system texts
    apart or in the user's turn."""
    folded = _fold(messages)
    for way in [messages, folded] if folded else [messages]:
        yield way
        if any(message.get("tool_calls") for message in way):
            yield [_as_json(message) for message in way]


def _fold(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """`messages` with every system text before the question that follows it; None when there is none."""
    folded, waiting = [], ""
    for message in messages:
        if message["role"] == "system":
            waiting += f"{message['content']}\n\n" if message["content"].strip() else ""
        elif message["role"] == "user":
            folded.append({**message, "content": waiting + message["content"]})
            waiting = ""
        else:
            folded.append(message)
    return None if waiting or len(folded) == len(messages) else folded


def _as_json(message: dict[str, Any]) -> dict[str, Any]:
    """`message` with the arguments of its calls as JSON: some templates write them as they come."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _lost(messages: Sequence[Message], tools: Sequence[Any], tokenizer: Any, thinking: bool) -> str:
    """What the template leaves out of a prompt made as `messages` with `tools`, in words; or nothing.

    It is tried on stand-ins for what is said: the words of one message may well stand in another.
    """
    tried = _stand_ins(messages)
    functions = [tool.get("function", tool) for tool in tools]
    named = [{**function, "name": f"q7zkt{number}kz7q"} for number, function in enumerate(functions)]
    probes = [{**t, "function": f} if "function" in t else f for t, f in zip(tools, named, strict=True)]
    text = _tried([probe for probe, _ in tried], tokenizer, probes, thinking, prompt=True)
    if text is None:  # it did take what stands there
        return ""
    for message, (_, words) in zip(messages, tried, strict=True):
        # The thoughts of earlier turns are the template's to show or not.
        if any(word not in text for word in words if not word.startswith("q7zkr")):
            return f"o que diz a mensagem de «{message['role']}»: {message['content'].strip()[:40]!r}"
    return next(
        (
            f"a ferramenta «{f['name']}»"
            for f, n in zip(functions, named, strict=True)
            if n["name"] not in text
        ),
        "",
    )


def _tried(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any], thinking: bool, prompt: bool = False
) -> str | None:
    """What the template writes of stand-ins, or None if it does not take them; most rows have the same."""
    written = template(tokenizer, bool(tools))
    return _written(json.dumps([messages, list(tools)]), tokenizer, written, thinking, prompt)


@lru_cache(maxsize=1024)
def _written(tried: str, tokenizer: Any, _template: str, thinking: bool, prompt: bool) -> str | None:
    messages, tools = json.loads(tried)
    try:
        return _render(messages, tokenizer, tools, thinking, prompt)
    except Exception:  # a template is a program: what it raises is anything
        return None


def _stand_ins(messages: Sequence[Message]) -> list[tuple[dict[str, Any], list[str]]]:
    return [_stand_in(message, number) for number, message in enumerate(messages)]


def _stand_in(message: Message, number: int) -> tuple[dict[str, Any], list[str]]:
    """A message like `message` whose texts are words that stand nowhere else, and these words."""
    probe = dict(message)
    words: list[str] = []

    def word(kind: str) -> str:
        words.append(f"q7zk{kind}{number}x{len(words)}kz7q")
        return words[-1]

    if message["content"].strip():
        probe["content"] = word("c")
    if message.get("reasoning_content"):
        probe["reasoning_content"] = word("r")
    if message.get("tool_calls"):
        probe["tool_calls"] = []
        for call in message["tool_calls"]:
            given = call["function"]["arguments"]
            given = json.dumps(word("a")) if isinstance(given, str) else {key: word("a") for key in given}
            probe["tool_calls"].append({**call, "function": {"name": word("f"), "arguments": given}})
    return probe, words


def _answer(
    prompt: str,
    asked: list[dict[str, Any]],
    message: dict[str, Any],
    tokenizer: Any,
    tools: Sequence[Any],
    thinking: bool,
) -> str:
    """What the model is to say after `prompt`: the answer as the template writes it, and its end."""
    said, thought = message["content"].strip(), message.get("reasoning_content", "").strip()
    stops = _stops(tokenizer)
    calls = json.dumps(message.get("tool_calls") or "", ensure_ascii=False)
    if stop := next((stop for stop in stops if any(stop in text for text in (said, thought, calls))), None):
        raise ValueError(f"a resposta contém «{stop}», que é o que faz o modelo parar: tire-o")
    before, (probe, words) = [one for one, _ in _stand_ins(asked)], _stand_in(message, len(asked))
    for way, tried in zip(_answers(message, tokenizer), _answers(probe, tokenizer), strict=True):
        try:
            text = _render([*asked, way], tokenizer, tools, thinking)
        except Exception:  # as above
            continue
        added = text.removeprefix(prompt)
        if len(added) < len(text) or not prompt:
            shown = _tried([*before, tried], tokenizer, tools, thinking)
            if shown is None or any(word not in shown for word in words):
                continue
            if said not in added and not message.get("tool_calls"):
                continue
            if not thought:
                added = _without_empty_thought(added, said, tokenizer)
            end = added.rfind(said) + len(said) if said and not message.get("tool_calls") else 0
            return _to_the_end(added, end, stops, tokenizer)
    return _answer_alone(prompt, asked, message, tokenizer, tools, thinking)


def _answers(message: dict[str, Any], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """`message` as templates take it: thoughts in a field of their own, or before the text."""
    start, end = _thought_marks(tokenizer)
    thought = message.get("reasoning_content")
    yield message
    if message.get("tool_calls"):
        yield _as_json(message)
    if thought:
        gap = "" if "channel" in end else "\n\n"
        content = f"{start}\n{thought}\n{end}{gap}{message['content']}"
        yield {**{k: v for k, v in message.items() if k != "reasoning_content"}, "content": content}


def _answer_alone(
    prompt: str,
    asked: list[dict[str, Any]],
    message: dict[str, Any],
    tokenizer: Any,
    tools: Sequence[Any],
    thinking: bool,
) -> str:
    """The answer to a prompt that the template does not go on from: what it writes around any answer."""
    said, thought = message["content"].strip(), message.get("reasoning_content", "").strip()
    question = [*asked[:-1], {**asked[-1], "content": QUESTION}] if asked else []
    try:
        before = _render(question, tokenizer, tools, thinking, prompt=True).split(QUESTION)
        if message.get("tool_calls"):
            return _call_alone(question, message, tokenizer, tools, thinking)
        whole = _render(
            [*question, {"role": "assistant", "content": ANSWER}], tokenizer, tools, thinking
        ).split(QUESTION)
        lead, after = whole[-1].split(ANSWER)
    except Exception as error:  # as above; also an answer that is not there, or twice
        raise ValueError(f"o modelo não aceita esta resposta ({' '.join(str(error).split())})") from None
    # The template writes less than the prompt (a thought that the prompt has), or more (a space).
    lead = lead.removeprefix(before[-1]) if lead.startswith(before[-1]) and len(before) > 1 else ""
    lead = _without_empty_thought(lead, "", tokenizer)
    start, end = _thought_marks(tokenizer)
    if prompt.rstrip().endswith(start) and not thought:  # what the prompt opens, the answer closes
        lead = f"\n{end}\n\n"
    elif thought:
        lead += "" if prompt.rstrip().endswith(start) else f"{start}\n"
        said = f"{thought}\n{end}" + ("" if "channel" in end else "\n\n") + said
    return _to_the_end(lead + said + after, len(lead + said), _stops(tokenizer), tokenizer)


def _call_alone(
    question: list[dict[str, Any]],
    message: dict[str, Any],
    tokenizer: Any,
    tools: Sequence[Any],
    thinking: bool,
) -> str:
    """A call after a prompt that the template does not go on from, or only as if it had no thought."""
    opened = [
        _render(question, tokenizer, tools, either, prompt=True).split(QUESTION)[-1]
        for either in (thinking, not thinking)
    ]
    probe, words = _stand_in(message, 0)
    for way, tried in ((message, probe), (_as_json(message), _as_json(probe))):
        shown = _render([*question, tried], tokenizer, tools, thinking)
        added = _render([*question, way], tokenizer, tools, thinking).split(QUESTION)[-1]
        added = added.removeprefix(next((one for one in opened if added.startswith(one)), added))
        if all(word in shown for word in words):
            return _to_the_end(_without_empty_thought(added, "", tokenizer), 0, _stops(tokenizer), tokenizer)
    raise ValueError("o modelo de conversa (chat template) não diz toda a resposta com chamadas")


def _to_the_end(text: str, start: int, stops: Sequence[str], tokenizer: Any) -> str:
    """`text` to its first stop; where there is none, to `start` and the end token."""
    ends = [at + len(stop) for stop in stops if (at := text.find(stop)) >= 0]
    if ends:
        return text[: min(ends)]
    return (text[:start] if start else text.rstrip()) + str(tokenizer.eos_token)


def _without_empty_thought(text: str, said: str, tokenizer: Any) -> str:
    """`text` but for a thought without words before what is `said`: nobody is to learn it."""
    for start, end in {_thought_marks(tokenizer), ("<think>", "</think>")}:
        empty = re.match(rf"\s*{re.escape(start)}\s*{re.escape(end)}\s*", text)
        if empty and said in text[empty.end() :]:
            return text[empty.end() :]
    return text


def _thought_marks(tokenizer: Any) -> tuple[str, str]:
    """What a thought of this model stands between."""
    return (
        getattr(tokenizer, "think_start", None) or "<think>",
        getattr(tokenizer, "think_end", None) or "</think>",
    )


def _stops(tokenizer: Any) -> list[str]:
    """The texts of the tokens that end an answer."""
    tokens = getattr(tokenizer, "eos_token_ids", None) or [tokenizer.eos_token_id]
    return [str(text) for text in tokenizer.convert_ids_to_tokens(sorted(tokens)) if text]


def _render(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any], thinking: bool, prompt: bool = False
) -> str:
    """What the template writes of `messages`; raises anything."""
    text: str = tokenizer.apply_chat_template(
        list(messages),
        tools=list(tools) or None,
        tokenize=False,
        add_generation_prompt=prompt,
        **settings(tokenizer, bool(tools), thinking),
    )
    return text


def settings(tokenizer: Any, tools: bool = False, thinking: bool = False) -> dict[str, Any]:
    """With what `apply_chat_template` writes for others, mlx-lm or Transformers, what it writes here."""
    if getattr(tokenizer, "_chat_template", None) is not None:  # one of mlx-lm's own, which are functions
        return {"enable_thinking": thinking}
    return {"enable_thinking": thinking, "chat_template": template(tokenizer, tools)}


def template(tokenizer: Any, tools: bool = False) -> str:
    """The chat template of `tokenizer`, that for tools if it has one and they are wanted, with the date fixed
    at `TODAY`; when it has none, one that writes what is said, a line each."""
    text = tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("tool_use" if tools else "default") or text.get("default")
    if text is None:
        first = list(tokenizer.encode(""))[:1]
        begins = first and first == [tokenizer.bos_token_id]
        return ("{{ bos_token }}" if begins else "") + PLAIN
    return _dated(text)


def template_missing(tokenizer: Any) -> bool:
    """Whether the model comes without a chat template."""
    return tokenizer.chat_template is None and getattr(tokenizer, "_chat_template", None) is None


def is_dated(tokenizer: Any) -> bool:
    """Whether the chat template of `tokenizer` would write the date of today."""
    return "strftime_now" in template(tokenizer)


@lru_cache(maxsize=8)
def _dated(text: str) -> str:
    """The template `text` in which the date is `TODAY`, by a macro in place of the function that tells it."""
    macro = "{%- macro strftime_now(format) -%}"
    if "strftime_now" not in text or text.startswith(macro):
        return text
    formats = {found[2] for found in re.finditer(r"strftime_now\(\s*(['\"])(.*?)\1", text)}
    dates = json.dumps({form: TODAY.strftime(form) for form in sorted(formats)})
    return f'{macro}{{{{ {dates}[format] | default("{TODAY:%Y-%m-%d}") }}}}{{%- endmacro -%}}{text}'
