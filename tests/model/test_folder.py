"""What the hub does not give is said by its cause, each with what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants, snapshot_download

from farense_qlora.model.folder import _why_not_had


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


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str, offline: bool = False) -> str:
    """What a person is told who asks the hub at `address` for a model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(Exception) as refused:
        snapshot_download("dono/modelo", endpoint=address, cache_dir=folder)
    return _why_not_had("dono/modelo", refused.value)


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
def test_a_hub_that_refuses(
    status: int, code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(status, code) as address:
        assert sentence in said(tmp_path, monkeypatch, address)


def test_no_network_and_none_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    assert "(ConnectError): ligue-se à rede" in said(tmp_path, monkeypatch, nobody)
    assert "HF_HUB_OFFLINE proíbe a rede: tire-o" in said(tmp_path, monkeypatch, nobody, offline=True)
