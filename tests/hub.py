"""A hub on this machine, in the layout of the real one: what it has, in bytes, and who asked for what."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """Serves the folder `model` as dono/modelo. Of weights that are asked for from the beginning it sends
    half, waits until some of that is in the folder `cache`, and sends Ctrl-C to the process `victim`."""

    model: Path
    cache: Path
    victim: int = 0
    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/dono/modelo/tree/"):
            self._json([self._entry(file) for file in sorted(self.model.iterdir())])
        elif path.startswith("/api/models/dono/modelo"):
            self._json({"id": "dono/modelo", "sha": COMMIT, "siblings": []})
        elif path.startswith(f"/dono/modelo/resolve/{COMMIT}/"):
            self._file((self.model / path.rsplit("/", 1)[1]).read_bytes())
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET

    def _entry(self, file: Path) -> dict[str, object]:
        content = file.read_bytes()
        digest = sha256(content).hexdigest()
        lfs = {"oid": digest, "size": len(content), "pointerSize": 130}
        entry = {"type": "file", "path": file.name, "size": len(content), "oid": digest[:40]}
        return entry | ({"lfs": lfs} if file.suffix == ".safetensors" else {})

    def _json(self, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _file(self, content: bytes) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.path.endswith(".safetensors"):
            self.ranges.append(asked)
            if self.victim and not start:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                deadline = time.monotonic() + 60
                while not any(part.stat().st_size for part in self.cache.rglob("*.incomplete")):
                    time.sleep(0.01)
                    assert time.monotonic() < deadline
                os.kill(self.victim, signal.SIGINT)
                return
        self.wfile.write(content[start:])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server in which `handler` answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@contextmanager
def refusing(status: int, code: str = "", message: str = "") -> Iterator[str]:
    """The address of a hub that answers every request in one way."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with serving(Answer) as address:
        yield address
