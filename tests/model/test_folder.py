"""What the hub does not give is said by its cause, each with what to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ASK = """
from farense_qlora.model.folder import find_model
from farense_qlora.errors import UserError
try:
    find_model("dono/modelo")
except UserError as error:
    print(error)
"""


@contextmanager
def hub(status: int, code: str = "") -> Iterator[str]:
    """The address of a hub that answers every request in one way."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def said(folder: Path, **environment: str) -> str:
    """What a person is told who asks for a model of the hub."""
    clean = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        env={**clean, "HF_HOME": str(folder), **environment},
    )
    assert done.stdout.count("\n") == 1, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "GatedRepo", "aceite-a em huggingface.co/dono/modelo, crie um token de leitura"),
        (404, "RepoNotFound", "não há nenhum modelo dono/modelo: confira o nome"),
        (401, "RepoNotFound", "não há nenhum modelo dono/modelo: confira o nome"),
        (503, "", "não deu o modelo dono/modelo (erro 503): tente daqui a uns minutos"),
        (429, "", "não deu o modelo dono/modelo (erro 429): tente daqui a uns minutos"),
    ],
)
def test_a_hub_that_refuses(status: int, code: str, sentence: str, tmp_path: Path) -> None:
    with hub(status, code) as address:
        assert sentence in said(tmp_path, HF_ENDPOINT=address)


def test_no_network_and_none_allowed(tmp_path: Path) -> None:
    assert "(ConnectError): ligue-se à rede" in said(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE proíbe a rede: tire-o" in said(tmp_path, HF_HUB_OFFLINE="1")
