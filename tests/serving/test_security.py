"""Nobody asks without the key, and nothing that comes in over the line ends the server or ties it up."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from conftest import Command
from serving import Served, answers, serving

from farense_qlora.errors import UserError
from farense_qlora.serving.app import DEFAULT_LIMITS, application, serve
from farense_qlora.serving.door import Door
from farense_qlora.training.run import Run

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Rui: quem foi?"}], "max_tokens": 8}
KEY = "chave-secreta"
SECONDS = 2
KEY_HEADER = f"Authorization: Bearer {KEY}\r\n"


def head(length: object) -> bytes:
    """The head of a request with the key, whose Content-Length need not be true."""
    lines = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{KEY_HEADER}"
    return f"{lines}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def served(trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that asks for a key, takes small requests only, and is impatient."""
    log = tmp_path_factory.mktemp("serve") / "log"
    limits = ("--max-body", 4096, "--max-seconds", SECONDS, "--max-tokens", 16, "--max-connections", 40)
    with serving(home, log, *limits, "--cors", "https://clube.example", token=KEY) as server:
        yield server
        assert "Traceback" not in log.read_text()


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client
        assert client.post(CHAT, json=BODY).status_code == 200  # whatever was done to it, it goes on


@pytest.mark.parametrize(
    "key",
    [None, "", "Bearer", "Bearer outra", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"],
)
def test_no_answer_without_the_key(client: httpx.Client, key: str | None) -> None:
    del client.headers["Authorization"]
    headers = {} if key is None else {"Authorization": key}
    for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/decorado")):
        response = client.request(method, path, json=BODY, headers=headers)
        assert response.status_code == 401 and "chave" in response.json()["error"]["message"]
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert client.get("/health").status_code == 200  # says nothing that is worth a key
    client.headers["Authorization"] = f"bearer {KEY}"


class Bytes(bytes):
    """Those of a key, not to be compared as bytes are: the time then tells how much of a guess is right."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a comparison that ends at the first difference")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]


class Key(str):
    """A key, not to be compared as text is."""

    def encode(self, *how: str) -> bytes:
        return Bytes(super().encode(*how))

    __eq__ = Bytes.__eq__
    __ne__ = Bytes.__eq__
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("key", ["chave-secreta", "olhão-€-𝄞"])
def test_how_much_of_a_wrong_key_is_right_does_not_show_in_the_time(key: str) -> None:
    routes = application(None, ["decorado"], DEFAULT_LIMITS)
    door = Door(app=routes, token=Key(key), hosts=None, origins=(), limits=DEFAULT_LIMITS)

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app=door)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                (
                    await client.get("/v1/models", headers={"Authorization": f"Bearer {guess}".encode()})
                ).status_code
                for guess in (key, key[:-1] + "x", key[:-1], "çã")
            ]

    assert asyncio.run(statuses()) == [200, 401, 401, 401]


def test_a_key_from_a_file(trained: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "chave").write_text("outra-chave\n", encoding="utf-8")
    with serving(home, tmp_path / "log", "--token-file", tmp_path / "chave", token=KEY) as server:
        statuses = [
            httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code
            for key in ("outra-chave", KEY)
        ]
    assert statuses == [200, 401]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "exemplo.pt"])
def test_a_server_without_a_key_stays_on_this_machine(trained: Path, host: str) -> None:
    run = Run(trained)
    with pytest.raises(UserError, match=f"^{host} é visível na rede"):
        serve(run.config, {run.name: run.best_adapter}, host=host)


def test_what_cannot_be_served_is_said(trained: Path, served: Served, tmp_path: Path) -> None:
    run = Run(trained)
    with pytest.raises(
        UserError, match=f"não consigo servir em 127.0.0.1:{served.port}: a porta está ocupada"
    ):
        serve(run.config, {run.name: run.best_adapter}, port=served.port)
    with pytest.raises(UserError, match="70000: não é uma porta"):
        serve(run.config, {run.name: run.best_adapter}, port=70000)
    with pytest.raises(UserError, match="não tem um modelo"):
        serve(run.config.changed(model=str(tmp_path)), {run.name: run.best_adapter}, port=0)


def test_without_the_extra_the_command_says_what_to_install(trained: Path, home: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from farense_qlora.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--run", "decorado"],
        env={**os.environ, "FARENSE_HOME": str(home)},
        text=True,
        capture_output=True,
    )
    said = "erro: para servir falta uvicorn: instale com «pip install 'farense-qlora[serve]'»\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_bad_arguments_end_in_one_line(farense: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "vazio").touch()
    for arguments, said in (
        (("--max-body", 5), "max_body = '5': tem de ser pelo menos 1000"),
        (("--token-file", tmp_path / "nada"), "nada: não existe"),
        (("--token-file", tmp_path / "vazio"), "está vazio"),
    ):
        done = farense("serve", "--run", "decorado", *arguments)
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
        assert done.stderr.startswith("erro: ") and done.stderr.count("\n") == 1


def test_a_request_that_is_too_large_is_refused_before_it_is_read(
    client: httpx.Client, served: Served
) -> None:
    response = client.post(CHAT, content=b" " * 5000)
    assert response.status_code == 413 and "no máximo 4096" in response.json()["error"]["message"]
    with served.connect() as connection:
        connection.sendall(head(999_999_999_999))
        assert b"413" in answers(connection)


def test_a_line_without_an_end_is_refused_and_the_refusal_can_be_read(served: Served) -> None:
    """Closed while the client still sends, the connection would be reset."""
    with served.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.sendall(b"GET /" + b"a" * 2_000_000)
        connection.shutdown(socket.SHUT_WR)
        assert answers(connection).startswith(b"HTTP/1.1 400 ")


def test_only_json_is_taken_so_that_no_foreign_page_can_ask(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = client.post(CHAT, content=json.dumps(BODY), headers={"Content-Type": kind})
        assert response.status_code == 415


def test_only_the_named_origin_may_read_answers(client: httpx.Client) -> None:
    for origin, allowed in (
        ("https://clube.example", True),
        ("https://outro.example", False),
        ("null", False),
    ):
        for response in (
            client.options(CHAT, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
            client.post(CHAT, json=BODY, headers={"Origin": origin}),
            client.post(CHAT, json={}, headers={"Origin": origin}),
        ):
            named = response.headers.get("Access-Control-Allow-Origin")
            assert named == (origin if allowed else None)
            assert ("Access-Control-Allow-Headers" in response.headers) == allowed


def test_without_a_key_only_the_names_of_this_machine_are_answered(
    trained: Path, home: Path, tmp_path: Path
) -> None:
    """A foreign page can make its own name point here; the browser then sends that name."""
    with serving(home, tmp_path / "log") as server:
        statuses = {
            host: httpx.post(server.url + CHAT, json=BODY, headers={"Host": host}).status_code
            for host in (
                f"localhost:{server.port}",
                "127.0.0.1",
                "mau.example",
                f"mau.example:{server.port}",
                "",
            )
        }
        plain = httpx.get(f"{server.url}/health", headers={"Origin": "https://mau.example"})
    assert list(statuses.values()) == [200, 200, 403, 403, 403]
    assert not [name for name in plain.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/v1/models/../../../etc/passwd",
        "/v1/models/%2e%2e",
        "/v1//chat/completions",
        "/V1/models",
        "/chat.html",
        "/v1/chat/completions/",
        "http://mau.example/v1/models",
        "/health%00",
        "/\\..\\..\\",
        "*",
    ],
)
def test_paths_lead_nowhere_but_to_the_routes(client: httpx.Client, served: Served, path: str) -> None:
    with served.connect() as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\n{KEY_HEADER}Connection: close\r\n\r\n".encode()
        )
        answer = answers(connection)
    assert answer.startswith(b"HTTP/1.1 404 ") and "não há nada" in answer.decode()


@pytest.mark.parametrize("part", ["", "POST / HT", "POST / HTTP/1.1\r\nHost: x\r\nX: ", "corpo"])
def test_slow_clients_are_cut_off_and_others_served(client: httpx.Client, served: Served, part: str) -> None:
    """Slowloris: as many connections as the server takes, each with a byte now and then."""
    slow = [served.connect() for _ in range(30)]
    begun = time.monotonic()
    start = head(4000) + b'{"messages": [' if part == "corpo" else part.encode()
    for connection in slow:
        connection.sendall(start)
    assert client.post(CHAT, json=BODY).status_code == 200
    last = b""
    while slow and time.monotonic() - begun < 4 * SECONDS:
        time.sleep(0.2)
        for connection in list(slow):
            connection.setblocking(False)
            with suppress(BlockingIOError, BrokenPipeError):
                connection.sendall(b"x")
            with suppress(BlockingIOError):
                with suppress(ConnectionResetError):
                    last = connection.recv(4096) or last
                connection.close()  # it was answered, or ended
                slow.remove(connection)
    assert not slow and time.monotonic() - begun >= SECONDS - 0.5
    assert part != "corpo" or b" 408 " in last


def test_a_client_that_does_not_read_is_given_up(client: httpx.Client, served: Served) -> None:
    long = json.dumps({**BODY, "stream": True, "temperature": 2, "max_tokens": 16}).encode()
    deaf = []
    for _ in range(20):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        connection.connect(("127.0.0.1", served.port))
        connection.sendall(head(len(long)) + long)
        deaf.append(connection)
    assert client.post(CHAT, json=BODY).status_code in (200, 429)
    time.sleep(SECONDS + 1)
    for connection in deaf:
        connection.close()


def test_connections_beyond_the_limit_are_refused_and_the_rest_served(
    client: httpx.Client, served: Served
) -> None:
    assert client.get("/health").status_code == 200  # keeps its connection
    many = [served.connect() for _ in range(60)]
    refused = 0
    for connection in many:
        connection.settimeout(0.2)
        with suppress(TimeoutError):
            refused += b"503" in connection.recv(1000)
    assert 15 <= refused <= 25
    assert client.post(CHAT, json=BODY).status_code == 200
    for connection in many:
        connection.close()
    time.sleep(0.5)
