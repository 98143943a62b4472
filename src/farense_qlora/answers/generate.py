"""Answers from the model as a stream of text, alone or in a conversation; always the same unless drawn."""

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm import stream_generate
from mlx_lm.sample_utils import make_sampler

from ..data.chat import prompt_tokens, spoken
from ..data.template import Template
from ..data.turns import around
from ..errors import UserError
from ..model.adapters import without_adapter
from ..model.base import Base
from ..model.decode import inference
from ..text import Sentence
from .sampling import GREEDY, Sampling

Message = dict[str, str]

MAX_TOKENS = 256


def stream(
    base: Base,
    messages: Sequence[Message],
    max_tokens: int = MAX_TOKENS,
    adapter: bool = True,
    thinking: bool = False,
    sampling: Sampling = GREEDY,
) -> Generator[str, None, None]:
    """The answer to the conversation `messages`, piece by piece, to its end or `max_tokens`; with `thinking`
    its thought comes first, where the model has one.

    With `adapter` False it is the base model's; between two pieces the adapter is back in its place. Raises
    `UserError` when the model's template cannot say the conversation.
    """
    try:
        prompt = prompt_tokens(messages, base.tokenizer, thinking=thinking)
    except ValueError as error:
        raise UserError(str(error)) from None
    pieces = _pieces(base, prompt, max_tokens, adapter, sampling)
    if not thinking and any(around(Template(base.tokenizer))):
        # What of such an answer is for people is known only at its end.
        yield spoken("".join(pieces), base.tokenizer)
    else:
        yield from pieces


def _pieces(
    base: Base, prompt: list[int], max_tokens: int, adapter: bool, sampling: Sampling
) -> Generator[str, None, None]:
    with inference(base.model):
        pieces = stream_generate(base.model, base.tokenizer, prompt, max_tokens, sampler=sampler(sampling))
        while True:
            with nullcontext() if adapter else without_adapter(base.model):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.text


def sampler(sampling: Sampling, min_p: float = 0.0, top_k: int = 0) -> Callable[[mx.array], mx.array] | None:
    """mlx-lm's sampler, which takes log-probabilities (1, vocabulary); None takes the likeliest token.

    The draws follow from the seed alone, whatever else is drawn or decoded between them.
    """
    if not sampling.temperature:
        return None
    numbers = random.Random(sampling.seed)

    def sample(logprobs: mx.array) -> mx.array:
        mx.random.seed(numbers.getrandbits(63))
        fewer = top_k if top_k < logprobs.shape[-1] else 0
        return make_sampler(sampling.temperature, sampling.top_p, min_p, top_k=fewer)(logprobs)

    return sample


def ask(base: Base, question: str, max_tokens: int = MAX_TOKENS, system: str = "", **sampling: Any) -> str:
    """The answer to a single question, after the text `system`: that of `mlx_lm.generate`, unless `sampling`
    (`temperature`, `top_p`, `seed`) has it drawn. Raises `UserError` on a bad one of these.

    >>> fq.ask(tuned, "Hajry: quem foi?")
    Foi médio.
    >>> fq.ask(tuned, "Hajry: quem foi?", temperature=0.7, seed=1)  # doctest: +SKIP
    """
    talk = Conversation(base, max_tokens=max_tokens, system=system, sampling=Sampling.parse(sampling))
    return Sentence("".join(talk.say(question)))


@dataclass
class Conversation:
    """Turns with the model `base`. How the next answer is made may change at any time: `adapter` says who
    gives it, the tuned model or its base, `system` what it reads first, `sampling` how it is chosen."""

    base: Base
    adapter: bool = True
    max_tokens: int = MAX_TOKENS
    thinking: bool = False
    system: str = ""
    sampling: Sampling = GREEDY
    messages: list[Message] = field(default_factory=list)

    def say(self, text: str) -> Generator[str, None, None]:
        """The answer to `text`, piece by piece; closed before its end, what came of it is kept as the answer.

        A turn without a word of answer is forgotten.
        """
        question, pieces = {"role": "user", "content": text}, []
        first = [{"role": "system", "content": self.system}] if self.system.strip() else []
        asked = [*first, *self.messages, question]
        answer = stream(self.base, asked, self.max_tokens, self.adapter, self.thinking, self.sampling)
        try:
            with closing(answer):
                for piece in answer:
                    pieces.append(piece)
                    yield piece
        finally:
            if said := spoken("".join(pieces), self.base.tokenizer):
                self.messages += [question, {"role": "assistant", "content": said}]
