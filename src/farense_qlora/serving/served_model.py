"""The tuned model in mlx-lm's generation thread: nothing else answers there, and errors do not end it."""

import logging
import queue
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import LRUPromptCache, can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.server import ModelProvider, ResponseGenerator
from mlx_lm.utils import load_tokenizer

from ..answers.generate import MAX_TOKENS
from ..config import Config
from ..data.template import settings
from ..model.adapters import load_adapter
from ..model.base import load_base
from ..model.machine import memory_bytes

# Answers decoded together; the others that were let in wait for their turn.
BATCH = 8


class Provider(ModelProvider):
    """The tuned model, whatever a request names: mlx-lm's would answer with the base, or load another."""

    def __init__(self, config: Config, adapter: Path):
        super().__init__(_mlx_lm_settings(config.model))
        self._config, self._adapter = config, adapter

    def load(self, *_: object) -> tuple[Any, Any]:
        """The model and its tokenizer; they are loaded in the calling thread, and bound to its streams."""
        if self.model is None:  # type: ignore[has-type]
            base = load_base(self._config)
            load_adapter(base.model, self._adapter)
            self.model, self.tokenizer, self.model_key = base.model, base.tokenizer, (str(base.path),)
            self.is_batchable = all(hasattr(cache, "merge") for cache in make_prompt_cache(base.model))
            self.cli_args.chat_template_args = settings(base.tokenizer)
            # For the threads that count a prompt's tokens: a tokenizer is not to be shared between threads.
            self.counter, self.counting = load_tokenizer(base.path), threading.Lock()
        return self.model, self.tokenizer


class Generator(ResponseGenerator):
    """mlx-lm's generation thread; it outlives an error: who was waiting is told, and others are served."""

    def __init__(self, provider: Provider):
        self._ready, self._failures = threading.Event(), 0
        self._error: Exception | None = None
        self._asking = threading.local()
        super().__init__(provider, _prompt_cache())

    def loaded(self) -> "Generator":
        """Wait until the model is there; raises the error that loading ended with."""
        self._ready.wait()
        if self._error is not None:
            raise self._error
        return self

    def generate(self, request: Any, args: Any, progress_callback: Any = None) -> tuple[Any, Iterator[Any]]:
        """As mlx-lm's, but text that comes with the token that ends an answer is not lost."""
        self._asking.failures = self._failures
        context, responses = super().generate(request, args, progress_callback)

        def whole() -> Iterator[Any]:
            for response in responses:
                if response.finish_reason == "stop" and response.text and not args.stop_words:
                    yield replace(response, finish_reason=None)
                    response = replace(response, text="")
                yield response

        return context, whole()

    def _run_generate(self) -> None:
        try:
            self.model_provider.load()
        except Exception as error:
            self._error, self._generation_failed, self._stop = error, True, True
        self._ready.set()
        while not self._stop:
            try:
                self._generate()
            except Exception:
                logging.exception("a geração falhou; recomeça")
                self._failures += 1
                self.prompt_cache = _prompt_cache()
        mx.clear_streams()  # or MLX, which finds them without their thread at the end, aborts the process

    def _await_response(self, response_queue: Any) -> Any:
        while True:
            try:
                return response_queue.get(timeout=1.0)
            except queue.Empty:
                if self._asking.failures != self._failures or not self.generation_available():
                    raise RuntimeError("a geração falhou") from None


class PromptCache(LRUPromptCache):
    """mlx-lm's, but it never gives all of a prompt: a batch cannot begin an answer from no token at all."""

    def fetch_nearest_cache(self, model: Any, tokens: list[int]) -> tuple[Any, list[int]]:
        """The cache of the longest known beginning of `tokens`, and those that are left: one at least."""
        cache, rest = super().fetch_nearest_cache(model, tokens)
        if rest or cache is None:
            return cache, rest
        if not can_trim_prompt_cache(cache):
            return None, tokens
        trim_prompt_cache(cache, 1)
        return cache, tokens[-1:]


def _prompt_cache() -> PromptCache:
    """What was read of earlier conversations, at most a sixteenth of the memory."""
    return PromptCache(max_size=2 * BATCH, max_bytes=memory_bytes() // 16)


def _mlx_lm_settings(model: str) -> Namespace:
    """What `mlx_lm.server` would have from its command line: greedy answers as long as those of `ask`."""
    return Namespace(
        model=model,
        adapter_path=None,
        draft_model=None,
        num_draft_tokens=0,
        pipeline=False,
        trust_remote_code=False,
        chat_template="",
        use_default_chat_template=False,
        chat_template_args={},
        max_tokens=MAX_TOKENS,
        temp=0.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        decode_concurrency=BATCH,
        prompt_concurrency=BATCH,
        prefill_step_size=512,
        prompt_cache_bytes=memory_bytes() // 16,
        kv_bits=None,
        kv_group_size=64,
        quantized_kv_start=0,
        allowed_origins=(),
    )
