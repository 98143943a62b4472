"""Conversations to tokens: each answer after exactly what inference shows before it, to what makes it stop.

What a prompt and an answer are as texts is in `turns.py`; here they become tokens, and rows of tokens. Nobody
counts the tokens of one rendering to find a place in another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .rows import Row
from .template import Message, Template
from .turns import QUESTION, around, write_answer, write_prompt


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
    return write_prompt(Template(tokenizer, tools, thinking), [dict(message) for message in messages])[0]


def taken(
    messages: Sequence[Message], tokenizer: Any, tools: Sequence[Any] = (), thinking: bool = False
) -> list[dict[str, Any]]:
    """`messages` as the template takes them and makes the prompt of; raises as `prompt_tokens` does."""
    return write_prompt(Template(tokenizer, tools, thinking), [dict(message) for message in messages])[1]


def question_tokens(row: Row, tokenizer: Any) -> list[int]:
    """The prompt that the last answer of `row` is learnt after; raises as `prompt_tokens` does."""
    thinking = bool(row.messages[-1].get("reasoning_content"))
    return prompt_tokens(row.messages[:-1], tokenizer, row.tools, thinking)


def spoken(text: str, tokenizer: Any) -> str:
    """What a person is to hear of an answer: neither its thought nor what the template writes around it."""
    template = Template(tokenizer)
    lead, tail = around(template)
    for mark in (template.thought_marks[1], lead):
        if mark and mark in text:
            text = text.rpartition(mark)[2].lstrip()
    return text.rstrip().removesuffix(tail).rstrip() if tail else text


def encode_rows(rows: Sequence[Row], tokenizer: Any) -> list[list[Piece] | ValueError]:
    """The pieces of each of `rows`: one with all its answers where one pass can hold them truly, else one an
    answer; or the error that says what cannot be made true."""
    turns = [_turns(row, tokenizer) for row in rows]
    answers = [turn for some in turns if isinstance(some, list) for turn in some]
    texts = [text for turn in answers for text in (turn.prompt, turn.prompt + turn.answer)]
    tokens = iter(_ids(texts, tokenizer))  # of all at once, which is quick
    found: list[list[Piece] | ValueError] = []
    for row, some in zip(rows, turns, strict=True):
        if isinstance(some, ValueError):
            found.append(some)
        elif row.text:
            found.append([_text(row.text, tokenizer)])
        else:
            found.append(_pieces([(turn, next(tokens), next(tokens)) for turn in some], tokenizer))
    return found


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
                template = Template(tokenizer, row.tools, bool(message.get("reasoning_content")))
                prompt, asked = write_prompt(template, messages[:k])
                answer = write_answer(template, prompt, asked, message)
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
        before: list[bool] = []
        if pieces and prompt[: len(pieces[-1].tokens)] == pieces[-1].tokens:
            before = pieces.pop().supervised
        supervised = before + [False] * (len(prompt) - len(before)) + [True] * len(answer)
        pieces.append(Piece(prompt + answer, supervised, turn.folded))
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
    # Of a wrapper of mlx-lm's the tokenizer inside, which takes many texts.
    inner = getattr(tokenizer, "_tokenizer", tokenizer)
    ids: list[list[int]] = inner(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids
