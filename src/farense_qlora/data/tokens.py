"""Rows to tokens: the chat template applied once, and a mask over the assistant's tokens of every turn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError
from .rows import Row


@dataclass(frozen=True)
class Example:
    """A tokenized row: `tokens` (length,) int32; `supervised` (length,) bool, true where loss is taken."""

    tokens: np.ndarray
    supervised: np.ndarray


@dataclass(frozen=True)
class Encoded:
    """`examples` in the order of the rows; `truncated` rows were longer than the window and were cut."""

    examples: tuple[Example, ...]
    truncated: int

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(example.tokens) for example in self.examples])


def encode(rows: Sequence[Row], tokenizer: Any, max_seq_length: int) -> Encoded:
    """Tokenize `rows`, cut to `max_seq_length`; raises `UserError` if a cut leaves a row nothing to learn."""
    examples, truncated = [], 0
    for index, row in enumerate(rows):
        tokens, supervised = _encode_text(row, tokenizer) if row.text else _encode_messages(row, tokenizer)
        if len(tokens) > max_seq_length:
            truncated += 1
            tokens, supervised = tokens[:max_seq_length], supervised[:max_seq_length]
        if not any(supervised[1:]):
            raise UserError(
                f"a linha de dados n.º {index + 1} perde toda a resposta ao ser cortada a {max_seq_length} "
                "tokens: aumente max_seq_length ou encurte a pergunta"
            )
        examples.append(Example(np.array(tokens, np.int32), np.array(supervised, bool)))
    return Encoded(tuple(examples), truncated)


def prompt_tokens(messages: Sequence[dict[str, str]], tokenizer: Any) -> list[int]:
    """The conversation so far as the model sees it when it is its turn to answer."""
    return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True))


def _encode_text(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    tokens = [*tokenizer.encode(row.text), tokenizer.eos_token_id]
    return tokens, [True] * len(tokens)


def _encode_messages(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Template the whole conversation, then mark what each answer adds to the prompt before it."""
    messages = list(row.messages)
    tokens = list(tokenizer.apply_chat_template(messages))
    supervised = [False] * len(tokens)
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = len(prompt_tokens(messages[:turn], tokenizer))
        end = len(tokens)
        if turn + 1 < len(messages):
            end = len(tokenizer.apply_chat_template(messages[: turn + 1]))
        supervised[start:end] = [True] * (end - start)
    return tokens, supervised
