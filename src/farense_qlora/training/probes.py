"""A few questions of the validation set, asked at every evaluation: the answers show what is learnt."""

import json
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

from mlx import nn
from mlx_lm.generate import batch_generate

from ..data.chat import question_tokens, spoken
from ..data.rows import Row
from . import ranks

MAX_TOKENS = 24  # enough to see whether it knows; the answers are for the eye, the evaluation has its own


class Probes:
    """`count` conversations of `rows`: the last `questions` in them and the `expected` answers.

    The tables of facts take turns, the one with the most questions first: what most is asked about is seen.
    """

    def __init__(self, rows: Sequence[Row], tokenizer: Any, count: int):
        talks = [row for row in rows if len(row.messages) > 1 and row.messages[-1]["content"]]
        talks = [row for row in talks if len(row.messages) == 2] or talks  # that need no context, if any
        tables: dict[str | None, list[Row]] = {}
        for row in talks:
            tables.setdefault(row.table, []).append(row)
        turns = zip_longest(*sorted(tables.values(), key=len, reverse=True))
        chosen = [row for row in chain(*turns) if row is not None][:count]
        self.questions = tuple(row.messages[-2]["content"] for row in chosen)
        self.expected = tuple(row.messages[-1]["content"] for row in chosen)
        self._prompts = [question_tokens(row, tokenizer) for row in chosen]
        self._tokenizer = tokenizer

    def answers(self, model: nn.Module) -> tuple[str, ...]:
        """What `model` answers now, greedy and cut at `MAX_TOKENS`; draws no random numbers. Processes that
        train together share the questions."""
        rank, size = ranks.rank(), ranks.size()
        model.eval()
        try:
            mine = self._prompts[rank::size]
            texts = batch_generate(model, self._tokenizer, mine, max_tokens=MAX_TOKENS).texts if mine else []
        finally:
            model.train()
        shares = [json.loads(share) for share in ranks.said(json.dumps(texts))]
        asked = range(len(self._prompts))
        return tuple(spoken(shares[i % size][i // size], self._tokenizer).strip() for i in asked)
