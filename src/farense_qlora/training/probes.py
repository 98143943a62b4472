"""A few questions of the validation set, asked at every evaluation: the answers show what is learnt."""

from collections.abc import Sequence
from typing import Any

from mlx import nn
from mlx_lm.generate import batch_generate

from ..data.rows import Row
from ..data.tokens import prompt_tokens

MAX_TOKENS = 24  # enough to see whether it knows; the answers are for the eye, the evaluation has its own


class Probes:
    """`count` conversations spread over `rows`: the last `questions` in them and the `expected` answers."""

    def __init__(self, rows: Sequence[Row], tokenizer: Any, count: int):
        talks = [row.messages for row in rows if len(row.messages) > 1]
        talks = [talk for talk in talks if len(talk) == 2] or talks  # those that need no context, if any
        count = min(count, len(talks))
        chosen = [talks[i * len(talks) // count] for i in range(count)]
        self.questions = tuple(talk[-2]["content"] for talk in chosen)
        self.expected = tuple(talk[-1]["content"] for talk in chosen)
        self._prompts = [prompt_tokens(talk[:-1], tokenizer) for talk in chosen]
        self._tokenizer = tokenizer

    def answers(self, model: nn.Module) -> tuple[str, ...]:
        """What `model` answers now, greedy and cut at `MAX_TOKENS`; draws no random numbers."""
        model.eval()
        texts = batch_generate(model, self._tokenizer, self._prompts, max_tokens=MAX_TOKENS).texts
        model.train()
        return tuple(text.strip() for text in texts)
