"""Answers from the model, one as a stream of text or many at once; always greedy, so always the same."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from mlx import nn
from mlx_lm import stream_generate
from mlx_lm.generate import batch_generate

from ..data.tokens import prompt_tokens
from ..model.adapters import without_adapter
from ..model.base import Base

Message = dict[str, str]

MAX_TOKENS = 256
# Answers decoded together: on the CPU the weights are then dequantized once for all of them.
BATCH = 32


def stream(
    base: Base, messages: Sequence[Message], max_tokens: int = MAX_TOKENS, adapter: bool = True
) -> Generator[str, None, None]:
    """The answer to the conversation `messages`, piece by piece, to its end or `max_tokens`.

    With `adapter` False it is the base model's; between two pieces the adapter is back in its place.
    """
    prompt = prompt_tokens(messages, base.tokenizer)
    with _inference(base.model):
        pieces = stream_generate(base.model, base.tokenizer, prompt, max_tokens)
        while True:
            with nullcontext() if adapter else without_adapter(base.model):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.text


def ask(base: Base, question: str, max_tokens: int = MAX_TOKENS) -> str:
    """The answer to a single question: the text that `mlx_lm.generate` gives."""
    return "".join(stream(base, [{"role": "user", "content": question}], max_tokens))


def answers(
    base: Base,
    conversations: Sequence[Sequence[Message]],
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """The answers to many conversations, in their order: what `stream` says, decoded in batches.

    `progress` is called after each batch with the number of answers in it (`tqdm.update` fits).
    """
    prompts = [prompt_tokens(messages, base.tokenizer) for messages in conversations]
    # Prompts of one length need no padding; the longest first, so that too little memory shows at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    texts = [""] * len(prompts)
    with _inference(base.model):
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            response = batch_generate(
                base.model,
                base.tokenizer,
                [prompts[index] for index in batch],
                max_tokens=max_tokens,
                return_token_ids=True,
                prefill_batch_size=BATCH,
                completion_batch_size=BATCH,
            )
            for index, tokens in zip(batch, response.token_ids or [], strict=True):
                texts[index] = _text(tokens, base.tokenizer)
            progress(len(batch))
    return texts


def _text(tokens: Sequence[int], tokenizer: Any) -> str:
    """`tokens` as the streaming detokenizer spells them, so that batched and streamed answers are equal."""
    detokenizer = tokenizer.detokenizer
    for token in tokens:
        detokenizer.add_token(token)
    detokenizer.finalize()
    text: str = detokenizer.text
    return text


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Without dropout, and back to training afterwards if that is where the model was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
