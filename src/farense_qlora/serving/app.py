"""The tuned model behind the OpenAI chat API, with a page to converse on."""

import base64
import hashlib
import ipaddress
import json
import re
import signal
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from .. import model as _model  # noqa: F401  chooses the BLAS before anything here imports mlx
from ..config import Config
from ..errors import UserError, invalid, reason
from .api import NEUTRAL, ChatRequest, Failure, Limits
from .door import CHAT, MODELS, NOT_JSON, Connection, Door, Refused
from .engine import Answer, Engine, Piece

KEY_VARIABLE = "FARENSE_API_KEY"
DEFAULT_LIMITS = Limits.parse({})
FAILED = "a geração falhou; tente outra vez"
AGAIN = {"Retry-After": "1"}
STREAMED: dict[int | str, Any] = {
    200: {"description": "A resposta, inteira ou aos bocados.", "content": {"text/event-stream": {}}}
}
UVICORN: dict[str, Any] = {
    "log_config": None,
    "log_level": "error",
    "access_log": False,
    "server_header": False,
    "ws": "none",
    "lifespan": "off",
    "proxy_headers": False,
    "headers": [("Server", "farense-qlora")],
}


def serve(
    config: Config,
    adapters: Mapping[str, Path],
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    origins: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the `adapters` on their one base until SIGINT or SIGTERM; call it in the main thread. A request
    gets the one that its `model` names, and the first when it names none. `ready` is called with the address
    when requests are answered; port 0 takes a free one.

    Raises `UserError` when the model cannot be loaded, the address cannot be had, or `host` is not this
    machine alone and there is no `token`.

    >>> fq.serve(config, {"farense": run.best_adapter}, port=0)  # doctest: +SKIP
    """
    if not token and not _is_loopback(host):
        raise UserError(
            f"{host} é visível na rede: defina uma chave na variável {KEY_VARIABLE} ou com --token-file"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except (OSError, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else "não é uma porta"
        raise UserError(f"não consigo servir em {host}:{port}: {why}") from None
    with listener, closing(Engine(config, adapters, limits)) as engine:
        engine.wait_until_loaded()
        # A browser that a foreign page points at this machine under a name of its own is not to be answered.
        hosts = None if token else frozenset({"localhost", "127.0.0.1", "[::1]", host})
        routes = application(engine, [*adapters], limits)
        door = Door(app=routes, token=token, hosts=hosts, origins=tuple(origins), limits=limits)
        protocol: Any = partial(Connection, limits=limits)
        server = uvicorn.Server(uvicorn.Config(door, http=protocol, **UVICORN))
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes them over, and raises them at its end
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        server.run(sockets=[listener])


def application(engine: Engine, names: Sequence[str], limits: Limits) -> FastAPI:
    """The routes, behind which `engine` answers under the model `names`, the first when none is named."""
    app = FastAPI(
        title="farense-qlora",
        version="1",
        description="A API de conversa da OpenAI, servida por um modelo treinado.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"4XX": {"model": Failure}, 503: {"model": Failure}},
    )
    same = {"object": "model", "created": int(time.time()), "owned_by": "farense-qlora"}
    about = {one: {"id": one, **same} for one in names}
    # The key is described here, and asked for at the door.
    key = [Security(HTTPBearer(auto_error=False, scheme_name="token"))]
    page = _page()

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return page

    @app.get("/health", summary="Se o servidor responde")
    async def health() -> dict[str, Any]:
        if not engine.alive:
            raise Refused(503, "o modelo não está a responder")
        return {"status": "ok", "model": names[0]}

    @app.get(MODELS, summary="Os modelos que há", dependencies=key)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [*about.values()]}

    @app.get(MODELS + "/{wanted}", include_in_schema=False)
    async def model(wanted: str) -> dict[str, Any]:
        if wanted not in about:
            raise HTTPException(404)
        return about[wanted]

    @app.post(CHAT, summary="Responde a uma conversa", dependencies=key, responses=STREAMED)
    async def chat(request: ChatRequest, connection: Request) -> Any:
        chosen = names[0] if request.model is None else request.model
        if chosen not in about:
            there = ", ".join(f"«{one}»" for one in about)
            raise Refused(404, f"o modelo pedido não existe; há {there}", code="model_not_found")
        if engine.running >= limits.max_requests:
            raise Refused(429, "demasiados pedidos ao mesmo tempo; tente daqui a pouco", AGAIN)
        answer = Answer(request)
        reply = Reply(chosen, answer, engine.pieces(answer))
        try:
            await anext(reply.pieces)  # accepted
            if not request.stream:
                return await reply.whole(connection)
        except UserError as error:
            raise Refused(400, str(error)) from None
        except RuntimeError:
            raise Refused(503, FAILED, AGAIN) from None
        usage = request.stream_options is not None and bool(request.stream_options.include_usage)
        return StreamingResponse(reply.events(usage), media_type="text/event-stream")

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> Response:
        return Refused(400, _what_is_wrong(error)).response

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        if isinstance(error, Refused):
            return error.response
        if error.status_code == 404:
            return Refused(404, f"não há nada neste endereço; a API está em {CHAT}").response
        if error.status_code != 405:
            return NOT_JSON.response
        headers = {"Allow": f"{(error.headers or {})['Allow']}, OPTIONS"}
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        return Refused(405, f"aqui só se aceita {headers['Allow']}", headers).response

    return app


class Reply:
    """An answer in the wire format of the OpenAI API, made of its `pieces` as they come."""

    def __init__(self, model: str, answer: Answer, pieces: AsyncGenerator[Piece, None]):
        self.answer, self.pieces = answer, pieces
        self.head = {
            "id": f"chatcmpl-{uuid4()}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": "farense-qlora",
        }

    @property
    def usage(self) -> dict[str, Any]:
        """The counts of tokens."""
        answer = self.answer
        return {
            "prompt_tokens": answer.prompt,
            "completion_tokens": answer.completion,
            "total_tokens": answer.prompt + answer.completion,
            "prompt_tokens_details": {"cached_tokens": answer.cached},
        }

    async def whole(self, connection: Request) -> dict[str, Any] | Response:
        """All of it at once, as long as somebody waits for it."""
        text, thought = "", ""
        async with aclosing(self.pieces):
            async for piece in self.pieces:
                if await connection.is_disconnected():
                    return Response(status_code=499)
                text, thought = text + piece.text, thought + piece.thought
        message = {"role": "assistant", "content": text or None} | ({"reasoning": thought} if thought else {})
        choice = {"index": 0, "finish_reason": piece.finish, "message": message}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    async def events(self, usage: bool) -> AsyncIterator[str]:
        """It piece by piece, as server-sent events; with `usage` the counts of tokens come before the end."""
        head = {**self.head, "object": "chat.completion.chunk"}
        yield _event({**head, "choices": [_chunk({"role": "assistant", "content": ""})]})
        async with aclosing(self.pieces):
            try:
                async for piece in self.pieces:
                    delta = {"content": piece.text, "reasoning": piece.thought}
                    said = {name: words for name, words in delta.items() if words}
                    if said or piece.finish:
                        yield _event({**head, "choices": [_chunk(said, piece.finish)]})
            except RuntimeError:  # too late for a status
                yield _event(Refused(503, FAILED).failure)
                return
        if usage:
            yield _event({**head, "choices": [], "usage": self.usage})
        yield _event("[DONE]")


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _event(data: dict[str, Any] | str) -> str:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def _what_is_wrong(error: RequestValidationError) -> str:
    """The first thing, in Portuguese; no value of the request is repeated in it."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]  # after «body»
    named = ".".join(place)[:100]
    if first["type"] == "extra_forbidden" or NEUTRAL & set(place):
        return f"{named}: este campo não é suportado"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    return f"{named}: {invalid(first)}" if place else "o corpo do pedido tem de ser um objeto JSON"


def _page() -> Response:
    """The chat page, and headers by which a browser runs its own style and script in it and nothing else."""
    page = Path(__file__).with_name("chat.html").read_text(encoding="utf-8")
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    for tag, text in re.findall(r"<(style|script)>(.*?)</\1>", page, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        policy += f"; {tag}-src 'sha256-{digest}'"
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
