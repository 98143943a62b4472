"""Conversations to tokens: each answer after exactly what inference shows before it, to what makes it stop.

What a prompt and an answer are as texts is in `turns.py`; here they become tokens, and rows of tokens. Nobody
counts the tokens of one rendering to find a place in another.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .rows import Message, Row
from .template import Template
from .turns import QUESTION, around, write_answer, write_prompt


class Piece(NamedTuple):
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
    text, _ = write_prompt(Template(tokenizer, tools, thinking), messages)
    return _ids([text], tokenizer)[0]


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


def encode_row(row: Row, tokenizer: Any) -> list[Piece]:
    """What is learnt of `row`: one piece with all its answers where one pass can hold them truly, else one an
    answer. Raises `ValueError` that says what cannot be made true."""
    if row.text:
        return [_text(row.text, tokenizer)]
    pieces: list[Piece] = []
    for k, message in enumerate(row.messages):
        if message["role"] != "assistant" or k < row.learn_from:
            continue
        template = Template(tokenizer, row.tools, bool(message.get("reasoning_content")))
        text, asked = write_prompt(template, row.messages[:k])
        said = write_answer(template, text, asked, message)
        prompt, whole = _ids([text, text + said], tokenizer)
        answer = whole[len(prompt) :]
        if whole[: len(prompt)] != prompt:  # the first letters would join the last token of the prompt
            answer = _continuation(said, tokenizer)
        before: list[bool] = []
        if pieces and prompt[: len(pieces[-1].tokens)] == pieces[-1].tokens:  # goes on where that one ended
            before = pieces.pop().supervised
        supervised = before + [False] * (len(prompt) - len(before)) + [True] * len(answer)
        pieces.append(Piece(prompt + answer, supervised, folded=len(asked) < k))
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
    while tokens and tokens[-1] == end:
        tokens.pop()
    return Piece([*tokens, end], [True] * (len(tokens) + 1))


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    inner = getattr(tokenizer, "_tokenizer", tokenizer)  # of mlx-lm's wrapper, which takes one text only
    return inner(texts, add_special_tokens=False)["input_ids"]
