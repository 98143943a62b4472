"""A conversation: what was said so far, and the next answer as a stream of text."""

from collections.abc import Generator
from contextlib import closing

from ..data.chat import spoken
from ..model.base import Base
from .generate import MAX_TOKENS, Message, stream


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
