"""Answers from the model as a stream of text, alone or in a conversation; greedy, so always the same."""

from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext

from mlx_lm import stream_generate

from ..data.chat import prompt_tokens, spoken
from ..data.template import Template
from ..data.turns import around
from ..errors import UserError
from ..model.adapters import without_adapter
from ..model.base import Base
from ..model.decode import answers, inference

Message = dict[str, str]

MAX_TOKENS = 256


def stream(
    base: Base,
    messages: Sequence[Message],
    max_tokens: int = MAX_TOKENS,
    adapter: bool = True,
    thinking: bool = False,
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
    if not thinking and any(around(Template(base.tokenizer))):
        # What of such an answer is for people is known only at its end.
        with nullcontext() if adapter else without_adapter(base.model):
            (said,) = answers(base, [prompt], max_tokens)
        yield said
        return
    with inference(base.model):
        pieces = stream_generate(base.model, base.tokenizer, prompt, max_tokens)
        while True:
            with nullcontext() if adapter else without_adapter(base.model):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.text


def ask(base: Base, question: str, max_tokens: int = MAX_TOKENS) -> str:
    """The answer to a single question: the text that `mlx_lm.generate` gives.

    >>> fq.ask(tuned, "Hajry: quem foi?")
    'Foi médio.'
    """
    return "".join(stream(base, [{"role": "user", "content": question}], max_tokens))


class Conversation:
    """Turns with the model `base`; `adapter` says who answers next, the tuned model or its base."""

    def __init__(
        self, base: Base, adapter: bool = True, max_tokens: int = MAX_TOKENS, thinking: bool = False
    ):
        self.base, self.adapter, self.max_tokens, self.thinking = base, adapter, max_tokens, thinking
        self.messages: list[Message] = []

    def say(self, text: str) -> Generator[str, None, None]:
        """The answer to `text`, piece by piece; closed before its end, what came of it is kept as the answer.

        A turn without a word of answer is forgotten.
        """
        question, pieces = {"role": "user", "content": text}, []
        asked = [*self.messages, question]
        answer = stream(self.base, asked, self.max_tokens, self.adapter, self.thinking)
        try:
            with closing(answer):
                for piece in answer:
                    pieces.append(piece)
                    yield piece
        finally:
            if said := spoken("".join(pieces), self.base.tokenizer):
                self.messages += [question, {"role": "assistant", "content": said}]
