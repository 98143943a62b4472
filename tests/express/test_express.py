"""The back end on docs/quickstart/START_HERE.md, as it stands there, between a client and a real model."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serving import serving

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "quickstart" / "START_HERE.md"
KEY = "chave-secreta"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="o Node e o npm não estão instalados"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's server and the Express of the lock file."""
    folder = tmp_path_factory.mktemp("express")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder)
    command = ["npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"o npm não consegue instalar o Express: {done.stderr.strip()[-200:]}")
    (code,) = re.findall(r"^```js\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (folder / "server.mjs").write_text(code, encoding="utf-8")
    return folder


@contextmanager
def back_end(project: Path, model: str, key: str = KEY) -> Iterator[httpx.Client]:
    environment = {**os.environ, "MODEL_URL": model, "FARENSE_API_KEY": key, "PORT": "0"}
    with subprocess.Popen(
        ["node", "server.mjs"], cwd=project, env=environment, text=True, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            with httpx.Client(
                base_url=process.stdout.readline().strip(), trust_env=False, timeout=60
            ) as client:
                yield client
        finally:
            process.kill()


def test_the_back_end_passes_on_answers_and_refusals(
    project: Path, trained: Path, home: Path, tmp_path: Path
) -> None:
    with serving(home, tmp_path / "log", "--max-prompt", 64, token=KEY) as served:
        with back_end(project, served.url) as client:
            answer = client.post("/api/ask", json={"prompt": "Hajry: quem foi?"})
            assert answer.status_code == 200
            assert answer.json() == {"prompt": "Hajry: quem foi?", "response": "Foi médio.", "status": "ok"}
            for body in ({}, {"prompt": " "}, {"prompt": 1}):
                assert client.post("/api/ask", json=body).status_code == 400
            long = client.post("/api/ask", json={"prompt": "muito longa " * 50})
            assert long.status_code == 502 and "no máximo 64" in long.json()["error"]
        with back_end(project, served.url, "errada") as client:
            refused = client.post("/api/ask", json={"prompt": "Olá?"})
            assert refused.status_code == 502 and "chave" in refused.json()["error"]


def test_the_back_end_says_when_the_model_is_away(project: Path) -> None:
    with back_end(project, "http://127.0.0.1:9") as client:
        answer = client.post("/api/ask", json={"prompt": "Olá?"})
        assert answer.status_code == 503 and answer.json()["error"] == "o modelo não responde"


def test_the_lock_file_names_no_host() -> None:
    assert "resolved" not in (HERE / "package-lock.json").read_text(encoding="utf-8")
