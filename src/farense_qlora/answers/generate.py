"""Answers from the model, one as a stream of text or many at once; always greedy, so always the same."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm import stream_generate
from mlx_lm.generate import BatchGenerator

from ..data.chat import prompt_tokens, spoken
from ..data.template import Template
from ..data.turns import around
from ..errors import UserError
from ..model.adapters import without_adapter
from ..model.base import Base
from ..model.cpu.blas import blas_threads
from ..model.cpu.parallel import parts, side_by_side, streams

Message = dict[str, str]

MAX_TOKENS = 256
# Answers decoded together: on the CPU the weights are then dequantized once for all of them.
BATCH = 32


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
    prompt = _asked(messages, base, thinking)
    if not thinking and any(around(Template(base.tokenizer))):
        # What of such an answer is for people is known only at its end.
        with nullcontext() if adapter else without_adapter(base.model):
            (said,) = answers(base, [prompt], max_tokens)
        yield said
        return
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
    prompts: Sequence[Sequence[int]],
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """The answers to many `prompts`, in their order: what `stream` says, decoded in batches, on a CPU one
    batch a core side by side.

    `progress` is called with the number of answers that ended, as they do (`tqdm.update` fits).
    """
    # Prompts of one length need no padding; the longest first, so that too little memory shows at once.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    texts = [""] * len(prompts)
    with _inference(base.model):
        lanes = [
            _decode(base, {index: list(prompts[index]) for index in part}, max_tokens, stream)
            for part, stream in zip(parts(order, side_by_side(base.model)), streams(), strict=False)
        ]
        with blas_threads(1 if len(lanes) > 1 else None):
            while lanes:
                for lane in list(lanes):
                    if (ended := next(lane, None)) is None:
                        lanes.remove(lane)
                        continue
                    for index, tokens in ended:
                        texts[index] = spoken(_text(tokens, base.tokenizer), base.tokenizer)
                    if ended:
                        progress(len(ended))
    return texts


def _asked(messages: Sequence[Message], base: Base, thinking: bool) -> list[int]:
    try:
        return prompt_tokens(messages, base.tokenizer, thinking=thinking)
    except ValueError as error:
        raise UserError(str(error)) from None


def _decode(
    base: Base, prompts: dict[int, list[int]], max_tokens: int, stream: mx.Stream
) -> Iterator[list[tuple[int, list[int]]]]:
    """Answer `prompts` on `stream`, `BATCH` at once; gives after each token the answers that ended with it.

    The next token is under way when the last one is given, so lanes that take turns compute side by side.
    """
    order = list(prompts)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        generator = BatchGenerator(
            base.model,
            max_tokens=max_tokens,
            stop_tokens=[[token] for token in base.tokenizer.eos_token_ids],
            prefill_batch_size=BATCH,
            completion_batch_size=BATCH,
            stream=stream,
        )
        uids = generator.insert([prompts[index] for index in batch])
        question = dict(zip(uids, batch, strict=True))
        said: dict[int, list[int]] = {uid: [] for uid in uids}
        while responses := generator.next_generated():
            for response in responses:
                if response.finish_reason != "stop":
                    said[response.uid].append(response.token)
            yield [(question[r.uid], said[r.uid]) for r in responses if r.finish_reason]
        generator.close()


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
