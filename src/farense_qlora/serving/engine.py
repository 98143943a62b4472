"""The thread that owns MLX: it loads the tuned model and decodes the answers of many requests together, those
of each adapter by themselves."""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from mlx_lm.generate import BatchGenerator, TextStateMachine
from mlx_lm.models.cache import LRUPromptCache
from mlx_lm.sample_utils import make_logits_processors

from ..answers.generate import MAX_TOKENS, sampler
from ..config import Config
from ..data.chat import prompt_tokens, spoken
from ..data.template import Template
from ..data.turns import around
from ..errors import UserError
from ..model.adapters import lora_layers, put_layers
from ..model.base import Base, load_base
from ..model.machine import memory_bytes
from .api import ChatRequest, Limits

BATCH = 8  # answers of an adapter decoded together; the others that were let in wait for their turn
PREFILL = 512  # tokens of a prompt that are read between two tokens of the answers under way


class Piece(NamedTuple):
    """What comes of an answer at once; `finish` is "stop" or "length" in the last."""

    text: str = ""
    thought: str = ""
    finish: str | None = None


class Engine:
    """Answers with the tuned models, and only with them: a request with the one of `adapters` that it names,
    or the first. An error does not end the thread: who was waiting is told, and others are served."""

    def __init__(self, config: Config, adapters: Mapping[str, Path], limits: Limits):
        self._config, self._adapters, self._limits = config, adapters, limits
        self._inbox: queue.Queue[Answer | None] = queue.Queue()
        self._loaded: Future[None] = Future()
        self._closing = False
        self.running = 0  # answers that somebody waits for
        # A thread of its own: arrays are bound to the streams of the thread that makes them.
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def wait_until_loaded(self) -> None:
        """Return when the model is there; raises the error that loading it ends with."""
        self._loaded.result()

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closing

    def close(self) -> None:
        """End the thread, and with it the answers under way."""
        self._closing = True
        self._inbox.put(None)
        self._thread.join()

    async def pieces(self, answer: "Answer") -> AsyncGenerator[Piece, None]:
        """The pieces of `answer`; the first is empty, and says that the prompt is accepted. Closing this
        generator takes the answer out of the batch. Raises `UserError` when the conversation is too long or
        the model's template does not take it, and `RuntimeError` when generating fails."""
        if not self.alive:
            raise RuntimeError("a geração acabou")
        self._inbox.put(answer)
        self.running += 1
        try:
            while True:
                piece = await answer.said.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            self.running -= 1
            answer.given_up = True

    def _run(self) -> None:
        try:
            base = load_base(self._config)
            layers = {name: lora_layers(base.model, folder) for name, folder in self._adapters.items()}
            bare = {name: layer.linear for own in layers.values() for name, layer in own.items()}
            # What of some models' answers is for people is known only at their end.
            self._spoken_late = any(around(Template(base.tokenizer)))
        except Exception as error:
            self._closing = True
            self._loaded.set_exception(error)
        else:
            self._loaded.set_result(None)
        answers: dict[tuple[str, int], Answer] = {}
        while not self._closing:
            try:
                self._decode(base, {name: {**bare, **own} for name, own in layers.items()}, answers)
            except Exception:
                logging.exception("a geração falhou; recomeça")
                for answer in answers.values():
                    answer.put(RuntimeError("a geração falhou"))
                answers.clear()
        mx.clear_streams()  # or MLX, which finds them without their thread at the end, aborts the process

    def _decode(
        self, base: Base, layers: dict[str, dict[str, Any]], answers: dict[tuple[str, int], "Answer"]
    ) -> None:
        """Decode until the engine is closed; `answers` are those in the batch of an adapter, by its numbers.
        Batches take turns of a token, so that nobody waits until another adapter's answers end; before its
        turn the `layers` of an adapter take the place of those that its batch is not to meet."""
        model, tokenizer = base.model, base.tokenizer
        batches = {
            adapter: BatchGenerator(
                model,
                stop_tokens=[[token] for token in tokenizer.eos_token_ids],
                prefill_batch_size=BATCH,
                completion_batch_size=BATCH,
                prefill_step_size=PREFILL,
                stream=mx.default_stream(mx.default_device()),
            )
            for adapter in layers
        }
        # What was read of earlier conversations, by the adapter that read it.
        caches = LRUPromptCache(max_size=2 * BATCH * len(batches), max_bytes=memory_bytes() // 16)
        on_model = None
        while not self._closing:
            with suppress(queue.Empty):
                while answer := self._inbox.get(block=not answers):
                    try:
                        answers[self._insert(answer, tokenizer, batches, caches)] = answer
                    except UserError as error:
                        answer.put(error)
                    except Exception:
                        answer.put(RuntimeError("a geração falhou"))
                        raise
            for adapter, number in [which for which, answer in answers.items() if answer.given_up]:
                batches[adapter].remove([number])
                del answers[adapter, number]
            for adapter in dict.fromkeys(adapter for adapter, _ in answers):
                if adapter != on_model:
                    put_layers(model, layers[adapter])
                    on_model = adapter
                for response in batches[adapter].next()[1]:
                    which = adapter, response.uid
                    piece = answers[which].add(response.token, response.finish_reason)
                    answers[which].put(piece)
                    if response.finish_reason:
                        taken = sum(batch.prompt_cache_nbytes for batch in batches.values())
                        caches.trim_to(n_bytes=caches.max_bytes - taken)
                        caches.insert_cache(adapter, response.all_tokens, response.prompt_cache)
                    elif piece.finish:
                        batches[adapter].remove([response.uid])
                    if piece.finish:
                        del answers[which]

    def _insert(
        self,
        answer: "Answer",
        tokenizer: Any,
        batches: dict[str, BatchGenerator],
        caches: LRUPromptCache,
    ) -> tuple[str, int]:
        request, limits = answer.request, self._limits
        adapter = request.model or next(iter(batches))
        try:
            prompt = prompt_tokens(request.conversation, tokenizer)
        except ValueError as error:
            raise UserError(f"messages: {error}") from None
        if (length := len(prompt)) > limits.max_prompt:
            raise UserError(
                f"messages: a conversa tem {length} tokens; pode ter no máximo {limits.max_prompt}"
            )
        # The last token is always read: an answer cannot begin from no token at all.
        cache, rest = caches.fetch_nearest_cache(adapter, prompt[:-1])
        answer.begin(prompt, length - 1 - len(rest), tokenizer, self._spoken_late)
        penalties = make_logits_processors(
            repetition_penalty=request.repetition_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
        )
        (number,) = batches[adapter].insert(
            [prompt[answer.cached :]],
            max_tokens=[request.answer_tokens(MAX_TOKENS, limits)],
            caches=[cache],
            all_tokens=[prompt[: answer.cached]],
            samplers=[sampler(request.sampling, request.min_p or 0, request.top_k or 0)],
            logits_processors=[penalties],
        )
        return adapter, int(number)


class Answer:
    """An answer under way, whose tokens become text here, up to where it stops. Counts tokens: `prompt`, of
    which `cached` did not have to be read again, and `completion`."""

    def __init__(self, request: ChatRequest):
        self.request, self.given_up = request, False
        self.prompt = self.cached = self.completion = 0
        self.said: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, piece: Piece | Exception) -> None:
        """Hand `piece`, from the engine's thread, to who waits for it."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self.said.put_nowait, piece)

    def begin(self, prompt: list[int], cached: int, tokenizer: Any, spoken_late: bool) -> None:
        """Accept `prompt`, of which the first `cached` tokens are known, and be ready for tokens; with
        `spoken_late` all the text comes in the last piece."""
        self.prompt, self.cached = len(prompt), cached
        self._tokenizer, self._detokenizer = tokenizer, tokenizer.detokenizer
        self._whole = "" if spoken_late else None
        ends: list[tuple[str, str | None]] = [(text, None) for text in self.request.stops]
        edges, state = {"answer": ends, "thought": ends}, "answer"
        if tokenizer.has_thinking:
            edges["answer"] = [*ends, (tokenizer.think_start, "thought")]
            edges["thought"] = [*ends, (tokenizer.think_end, "answer")]
            if tokenizer.rfind_think_start(prompt) > tokenizer.rfind_think_end(prompt):
                state = "thought"
        self._state = TextStateMachine(edges).make_state(state)
        self.put(Piece())

    def add(self, token: int, finish: str | None) -> Piece:
        """What `token` adds; `finish` says why it is the last, where it is."""
        self.completion += 1
        if finish != "stop":
            self._detokenizer.add_token(token)
        if finish:
            self._detokenizer.finalize()
        self._state, segments = TextStateMachine.split(self._state, self._detokenizer.last_segment)
        if self._state[0] is None:
            finish = "stop"
        elif finish:
            self._state, held, name = TextStateMachine.flush(self._state)
            segments.append((name, held))
        text, thought = (
            "".join(said for name, said in segments if name == of) for of in ("answer", "thought")
        )
        if self._whole is not None:
            self._whole += text
            text = spoken(self._whole, self._tokenizer) if finish else ""
        return Piece(text, thought, finish)
