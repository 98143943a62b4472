"""What stands before the routes: who may ask, how much, and how long that may take."""

import asyncio
import hmac
import re
import sys
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from pydantic_core import from_json
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..text import decimal
from .api import Failure, Limits, Problem

CHAT, MODELS = "/v1/chat/completions", "/v1/models"
PATHS = {"/", "/health", "/openapi.json", MODELS, CHAT}
CORS = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Vary": "Origin",
}


class Refused(HTTPException):
    """An answer that is not the one that was asked for: a status, a message for people, and a code."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, code: str = ""):
        super().__init__(status, message, headers)
        self.code = code or HTTPStatus(status).name.lower()

    @property
    def failure(self) -> str:
        """The refusal in JSON."""
        kind = "invalid_request_error" if self.status_code < 500 else "server_error"
        return Failure(error=Problem(message=self.detail, type=kind, code=self.code)).model_dump_json()

    @property
    def response(self) -> Response:
        """The refusal, as it is sent."""
        return Response(self.failure, self.status_code, self.headers, "application/json")


NOT_HTTP = Refused(400, "isto não é um pedido HTTP que se perceba")
NOT_JSON = Refused(400, "o corpo do pedido não é JSON válido")


@dataclass(frozen=True, kw_only=True)
class Door:
    """Lets a request through to `app` when it may ask, and has come in whole; logs each in a line. `hosts`
    are the names under which this server may be asked, None for any; all under `/v1/` needs the `token`, if
    there is one."""

    app: ASGIApp
    token: str | None
    hosts: frozenset[str] | None
    origins: tuple[str, ...]
    limits: Limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        request, started, status = Request(scope, receive), time.monotonic(), 0
        unread = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})
                if (origin := request.headers.get("origin", "")) in self.origins:
                    headers.update({"Access-Control-Allow-Origin": origin, **CORS})
                if unread:
                    headers["Connection"] = "close"
            await send(message)

        try:
            self._check(request)
            if request.method == "POST" and scope["path"] == CHAT:
                receive = _again(await self._body(request), receive)
                unread = False
            await self.app(scope, receive, answer)
        except Refused as refused:
            await refused.response(scope, receive, answer)
        except ClientDisconnect:
            pass
        finally:
            if status:
                log(scope["client"][0], request.method, scope["path"], status, time.monotonic() - started)

    def _check(self, request: Request) -> None:
        if request.scope["http_version"] not in ("1.0", "1.1"):
            raise NOT_HTTP
        host = re.sub(r":\d*$", "", request.headers.get("host", "").lower())
        if self.hosts is not None and host not in self.hosts:
            raise Refused(403, "este servidor só responde pelo nome deste computador (localhost)")
        if self.token and request.scope["path"].startswith("/v1/") and request.method != "OPTIONS":
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            same = hmac.compare_digest(token.strip().encode("latin-1"), self.token.encode())
            if scheme.lower() != "bearer" or not same:
                raise Refused(401, "falta a chave, ou não é esta", {"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """The JSON that is asked with, read only when it is of a size to be read, and only so long."""
        length, limit = request.headers.get("content-length"), self.limits.max_body
        if length is None or "transfer-encoding" in request.headers:
            raise Refused(411, "falta o tamanho do pedido (Content-Length)")
        if int(length) > limit:
            raise Refused(413, f"o pedido tem {length} bytes; pode ter no máximo {limit}")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a foreign page may not send unasked
            raise Refused(415, "o tipo do pedido (Content-Type) tem de ser application/json")
        try:
            async with asyncio.timeout(self.limits.max_seconds):
                body = await request.body()
        except TimeoutError:
            raise Refused(408, "o pedido não chegou todo a tempo") from None
        try:
            from_json(body, allow_inf_nan=False)  # stricter than what reads it later
        except ValueError:
            raise NOT_JSON from None
        return body


def _again(body: bytes, receive: Receive) -> Receive:
    """`receive` for those behind the door, to whom `body` has yet to come."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def log(client: str, method: str, path: str, status: int, seconds: float) -> None:
    """The one line that a request gets, which says nothing of what was in it."""
    known = path if path in PATHS else "(outro)"
    line = f"{time.strftime('%H:%M:%S')} {client} {method} {known} {status} {decimal(seconds, 2)} s\n"
    print(line, end="", file=sys.stderr)


class Connection(H11Protocol):
    """uvicorn's connection for the impatient: it ends when a request does not come, or an answer is not read,
    in time. What is not HTTP gets an answer too."""

    def __init__(self, *arguments: Any, limits: Limits, **settings: Any):
        super().__init__(*arguments, **settings)
        self.limits = limits
        self.waiting: asyncio.TimerHandle
        self.stalled: asyncio.TimerHandle

    @property
    def answering(self) -> bool:
        """Whether there is a request that has yet to be answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or say at once that there are too many connections."""
        super().connection_made(Lingering(transport, self.loop, self.limits.max_seconds))  # type: ignore[arg-type]
        self._wait()
        if len(self.connections) > self.limits.max_connections:
            self._refuse(Refused(503, "demasiadas ligações; tente daqui a pouco", {"Retry-After": "1"}))

    def data_received(self, data: bytes) -> None:
        """Take what comes in, unless the end has been said."""
        if not self.transport.is_closing():
            super().data_received(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client says no more. Most have gone, but what is on its way to one that reads on is sent."""
        if self.transport.is_closing():
            return False
        if self.answering and not self.cycle.more_body:
            self.loop.call_later(1, self.transport.abort)
            return True
        if self.answering or self.conn.trailing_data[0]:
            self.send_400_response("")
        return False

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(NOT_HTTP)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        self.waiting.cancel()
        super().on_response_complete()
        self._wait()

    def pause_writing(self) -> None:
        """The client does not read; it may not go on like that."""
        super().pause_writing()
        self.stalled = self.loop.call_later(self.limits.max_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self.stalled.cancel()

    def _wait(self) -> None:
        self.waiting = self.loop.call_later(self.limits.max_seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.answering:
            self.transport.close()

    def _refuse(self, refused: Refused) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = refused.response
            headers = [*response.raw_headers, (b"connection", b"close")]
            reason = HTTPStatus(response.status_code).phrase.encode()
            start = h11.Response(status_code=response.status_code, headers=headers, reason=reason)
            for event in (start, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            log(self.client[0] if self.client else "-", "-", "-", response.status_code, 0)
        if self.answering:  # to somebody who is now told something else
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class Lingering:
    """A transport that, to be closed, says the end and goes on reading for a while: a connection that ends
    with something unread is reset, and then our answer is never read."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, max_seconds: float):
        self._transport, self._loop, self._max_seconds = transport, loop, max_seconds
        self._closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether the end has been said."""
        return self._closing or self._transport.is_closing()

    def close(self) -> None:
        """Say the end, and see to it that it comes."""
        if self.is_closing():
            return
        self._closing = True
        self._transport.write_eof()
        self._transport.resume_reading()
        unsent = self._transport.get_write_buffer_size()
        self._loop.call_later(self._max_seconds if unsent else 1, self._transport.abort)
