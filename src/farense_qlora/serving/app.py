"""The tuned model behind the OpenAI chat API: mlx-lm's server, with a lock on its door.

Batching, prompt cache, sampling and the wire format are mlx-lm's. Ours is what stands before them: every
request is checked and bounded before mlx-lm sees it, nobody asks without the token, a refusal says why.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from mlx_lm.server import APIHandler

from ..config import Config, Limits
from ..data.chat import prompt_tokens, taken
from ..errors import UserError, reason
from ..text import decimal
from .api import ChatRequest, openapi
from .served_model import Generator, Provider

PAGE = Path(__file__).with_name("chat.html")
KEY_VARIABLE = "FARENSE_API_KEY"
DEFAULT_LIMITS = Limits.parse({})
CHAT, MODELS = "/v1/chat/completions", "/v1/models"


def serve(
    config: Config,
    adapter: Path,
    name: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    token: str | None = None,
    origins: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    ready: Callable[[str], object] = print,
) -> None:
    """Serve the `adapter` on its base under the model name `name`, until SIGINT or SIGTERM; call it in the
    main thread. `ready` is called with the address when requests are answered; port 0 takes a free one.

    Raises `UserError` when the model cannot be loaded, the address cannot be had, or `host` is not this
    machine alone and there is no `token`.
    """
    if not token and not _is_loopback(host):
        raise UserError(
            f"{host} é visível na rede: defina uma chave na variável {KEY_VARIABLE} ou com --token-file"
        )
    try:
        server = Server(host, port, name, token, origins, limits)
    except (OSError, OverflowError) as error:
        why = reason(error) if isinstance(error, OSError) else "não é uma porta"
        raise UserError(f"não consigo servir em {host}:{port}: {why}") from None
    generator = Generator(Provider(config, adapter))
    try:
        server.generator = generator.loaded()

        def stop(*_: object) -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)  # asked twice, it ends at once
            threading.Thread(target=server.shutdown).start()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        ready(f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}")
        server.serve_forever(poll_interval=0.1)
    finally:
        server.finish()
        generator.stop_and_join()


class Server(ThreadingHTTPServer):
    """A thread a connection, so many and no more; a connection that is slow to ask is closed."""

    daemon_threads = False  # so that the end waits for them
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, name: str, token: str | None, origins: Sequence[str], limits: Limits
    ):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.name, self.token, self.origins, self.limits = name, token, tuple(origins), limits
        self.generator: Any = None
        self.places = threading.BoundedSemaphore(limits.max_requests)
        self.created, self.stopping = int(time.time()), False
        self.page, self.page_headers = _page()
        self.openapi = json.dumps(openapi(), ensure_ascii=False).encode()
        # A browser that a foreign page points at this machine under a name of its own is not to be answered.
        self.hosts = None if token else {"localhost", "127.0.0.1", "[::1]", host}
        # For each connection the time by which its request must be there; infinite while it is answered.
        self.deadlines: dict[socket.socket, float] = {}
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        """Bind, without asking the name service what this host is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, or say at once that there are too many."""
        if len(self.deadlines) >= self.limits.max_connections:
            with suppress(OSError):
                request.setblocking(False)
                body = _error(503, "demasiadas ligações; tente daqui a pouco")
                length = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
                head = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n{length}\r\n\r\n"
                request.send(head.encode() + body)
            self.shutdown_request(request)
            return
        self.deadlines[request] = time.monotonic() + self.limits.max_seconds
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, whose place is then free."""
        self.deadlines.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Between two accepted connections: end those that are past their time."""
        now = time.monotonic()
        for connection, deadline in list(self.deadlines.items()):
            if now > deadline:
                _stop_reading(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection ended with, unless it is the client that went away."""
        if not isinstance(sys.exception(), OSError):  # those are clients that went away
            logging.exception("pedido falhado")

    def finish(self) -> None:
        """Take no new request, and return when those that were taken are answered."""
        self.stopping = True
        for connection, deadline in list(self.deadlines.items()):
            if deadline < float("inf"):
                _stop_reading(connection)
        self.server_close()


class Refused(Exception):
    """An answer that is not the one that was asked for: a status and a message for people."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.headers = status, headers


class Handler(APIHandler):
    """One connection: who may ask what, and how much; mlx-lm's handler gets what is in order."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for the client to acknowledge its head
    server: Server

    def __init__(self, request: Any, client_address: Any, server: Server):
        self.timeout = server.limits.max_seconds  # of a single read or write
        super().__init__(
            server.generator, request, client_address, server, system_fingerprint=self.version_string()
        )

    def version_string(self) -> str:
        """The name in the header `Server`: no versions of anything."""
        return "farense-qlora"

    def handle_one_request(self) -> None:
        """Answer one request within its time, and log it in a line."""
        self.started, self.status, self.body_read = time.monotonic(), 0, False
        self.command, self.path, self.headers = "", "", Message()
        self.server.deadlines[self.connection] = self.started + self.server.limits.max_seconds
        super().handle_one_request()
        if self.status:
            self._log()
        if self.server.stopping:
            self.close_connection = True

    def parse_request(self) -> bool:
        """Read the head of a request; a first line without a word gets an answer too."""
        if self.raw_requestline.strip():
            return super().parse_request()
        self.request_version = self.protocol_version
        self.send_error(400)
        return False

    def do_GET(self) -> None:
        """Answer a request of any method."""
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_TRACE = do_GET

    def _answer(self) -> None:
        try:
            path = self.path.partition("?")[0]
            routes: dict[str, dict[str, Callable[[], None]]] = {
                "/": {"GET": self._page},
                "/health": {"GET": self._health},
                "/openapi.json": {"GET": lambda: self._send(200, self.server.openapi)},
                MODELS: {"GET": self._models},
                f"{MODELS}/{self.server.name}": {"GET": self._model},
                CHAT: {"POST": self._chat},
            }
            self._check_host()
            if path not in routes:
                raise Refused(404, f"não há nada neste endereço; a API está em {CHAT}")
            methods = routes[path]
            allowed = ", ".join([*methods, "OPTIONS"])
            if self.command == "OPTIONS":
                self._send(204, b"", Allow=allowed)
            elif self.command not in methods:
                raise Refused(405, f"aqui só se aceita {allowed}", Allow=allowed)
            else:
                methods[self.command]()
        except Refused as refusal:
            self._send(refusal.status, _error(refusal.status, str(refusal)), **refusal.headers)

    def _check_host(self) -> None:
        host = re.sub(r":\d*$", "", self.headers.get("Host", "").lower())
        if self.server.hosts is not None and host not in self.server.hosts:
            raise Refused(403, "este servidor só responde pelo nome deste computador (localhost)")

    def _check_token(self) -> None:
        if self.server.token is None:
            return
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self.server.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise Refused(401, "falta a chave, ou não é esta", WWW_Authenticate="Bearer")

    def _page(self) -> None:
        self._send(200, self.server.page, **self.server.page_headers)

    def _health(self) -> None:
        if not self.server.generator.is_healthy:
            raise Refused(503, "o modelo não está a responder")
        self._send(200, json.dumps({"status": "ok", "model": self.server.name}).encode())

    def _models(self) -> None:
        self._check_token()
        self._send(200, json.dumps({"object": "list", "data": [self._about()]}).encode())

    def _model(self) -> None:
        self._check_token()
        self._send(200, json.dumps(self._about()).encode())

    def _about(self) -> dict[str, Any]:
        server = self.server
        return {"id": server.name, "object": "model", "created": server.created, "owned_by": "farense-qlora"}

    def _chat(self) -> None:
        """Check the request, then let mlx-lm's handler read it in the form in which it is safe."""
        body = self._read_body()
        self._check_token()
        if self.headers.get_content_type() != "application/json":  # what a foreign page may not send unasked
            raise Refused(415, "o tipo do pedido (Content-Type) tem de ser application/json")
        try:
            request = ChatRequest.read(body, self.server.limits)
        except UserError as error:
            raise Refused(400, str(error)) from None
        if request.model not in (None, self.server.name):
            raise Refused(404, f"o modelo pedido não existe; há «{self.server.name}»")
        if not self.server.places.acquire(blocking=False):
            raise Refused(429, "demasiados pedidos ao mesmo tempo; tente daqui a pouco", Retry_After="1")
        try:
            asked = request.for_mlx_lm(self.server.name, self.server.limits)
            safe = json.dumps({**asked, "messages": self._taken(request.conversation)}).encode()
            self.headers.replace_header("Content-Length", str(len(safe)))
            connection: Any = self.rfile  # type: ignore[has-type]
            self.rfile = BytesIO(safe)
            self.path, self.created = CHAT, int(time.time())
            try:
                super().do_POST()
            finally:
                self.rfile = connection
        finally:
            self.server.places.release()

    def _read_body(self) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if self.headers.get("Transfer-Encoding") or not lengths:
            raise Refused(411, "falta o tamanho do pedido (Content-Length)")
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,15}", lengths[0]):
            raise Refused(400, "o tamanho do pedido (Content-Length) não é um número")
        length, limit = int(lengths[0]), self.server.limits.max_body
        if length > limit:
            raise Refused(413, f"o pedido tem {length} bytes; pode ter no máximo {limit}")
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refused(408, "o pedido não chegou todo a tempo")
        self.body_read = True
        self.server.deadlines[self.connection] = float("inf")
        return bytes(body)

    def _taken(self, conversation: list[dict[str, str]]) -> list[dict[str, Any]]:
        """`conversation` as the model's template takes it; raises `Refused` if it does not, or it is long."""
        provider, limit = self.server.generator.model_provider, self.server.limits.max_prompt
        try:
            with provider.counting:
                length = len(prompt_tokens(conversation, provider.counter))
                messages = taken(conversation, provider.counter)
        except ValueError as error:
            raise Refused(400, f"messages: {error}") from None
        if length > limit:
            raise Refused(400, f"messages: a conversa tem {length} tokens; pode ter no máximo {limit}")
        return messages

    def handle_completion(self, request: Any, stop_words: list[str]) -> None:
        """Generate, as mlx-lm does; raises `Refused` when that fails and nothing was sent yet."""
        try:
            super().handle_completion(request, stop_words)
        except OSError:  # the client went away, or does not read
            raise
        except Exception:
            if self.status == 200 and self.stream:  # too late to say so otherwise
                self.close_connection = True
                return
            self._headers_buffer: list[bytes] = []
            raise Refused(503, "a geração falhou; tente outra vez", Retry_After="1") from None

    def _set_completion_headers(self, status_code: int = 200) -> None:
        if status_code != 200:  # of what mlx-lm refuses, only an answer that failed comes as far as this
            raise RuntimeError("a geração falhou")
        self._headers(200, "application/json")

    def _set_stream_headers(self, status_code: int = 200) -> None:
        self._headers(status_code, "text/event-stream")
        self.send_header("Connection", "close")  # it is how the client knows the end

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What Python's server refuses by itself: requests that are not HTTP as we speak it."""
        status = {501: 405, 505: 400}.get(int(code), code)
        self.close_connection = True
        self._send(status, _error(status, "isto não é um pedido HTTP que se perceba"))
        self._discard()

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        """Answer with `body`, JSON unless the headers say otherwise, and nothing left unread on the line."""
        kind = headers.pop("Content_Type", "application/json; charset=utf-8")
        self._headers(status, kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        unread = not self.body_read and (
            self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        )
        if unread or self.close_connection or self.server.stopping:
            self.send_header("Connection", "close")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if unread:
            self._discard()

    def _headers(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if (origin := self.headers.get("Origin")) in self.server.origins:
            self.send_header("Access-Control-Allow-Origin", origin)
            self.send_header("Access-Control-Allow-Methods", "GET, POST")
            self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
            self.send_header("Vary", "Origin")

    def _discard(self) -> None:
        """Read some of what still comes: closed before, the connection is reset and our answer never read."""
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            for _ in range(64):
                if not self.rfile.read1(65_536):
                    return

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Keep the status for the one line of the log."""
        self.status = int(code)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the one line that a request gets says nothing of what was in it."""

    def _log(self) -> None:
        known = self.path if self.path in ("/", "/health", "/openapi.json", MODELS, CHAT) else "(outro)"
        seconds = decimal(time.monotonic() - self.started, 2)
        who = f"{time.strftime('%H:%M:%S')} {self.client_address[0]}"
        print(f"{who} {self.command or '-'} {known} {self.status} {seconds} s\n", end="", file=sys.stderr)


def _error(status: int, message: str) -> bytes:
    """A refusal as the OpenAI API writes it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": HTTPStatus(status).name.lower()}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def _page() -> tuple[bytes, dict[str, str]]:
    """The chat page, and headers by which a browser runs its own style and script in it and nothing else."""
    page = PAGE.read_text(encoding="utf-8")
    allowed = {}
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert text is not None, tag
        digest = hashlib.sha256(text[1].encode()).digest()
        allowed[tag] = f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'"
    nothing_else = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    policy = "; ".join([nothing_else, "frame-ancestors 'none'", *allowed.values()])
    headers = {"Content_Type": "text/html; charset=utf-8", "Content_Security_Policy": policy}
    return page.encode(), headers


def _stop_reading(connection: socket.socket) -> None:
    """Let the thread that reads from `connection` find the end of it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
