"""A download says how large it is, can be interrupted and goes on; what the hub does not give is said by its
cause, each with what to do."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import FARENSE
from hub import COMMIT, Hub, refusing, serving
from huggingface_hub import constants, snapshot_download
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from farense_qlora.errors import UserError
from farense_qlora.hub import why_not_had
from farense_qlora.model.download import FILES, find_model


def said(folder: Path, monkeypatch: pytest.MonkeyPatch, address: str, offline: bool = False) -> str:
    """What a person is told who asks the hub at `address` for a model."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(Exception) as refused:
        snapshot_download("dono/modelo", endpoint=address, cache_dir=folder)
    return why_not_had("dono/modelo", refused.value)


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, "GatedRepo", "aceite-a em huggingface.co/dono/modelo, crie um token de leitura"),
        (404, "RepoNotFound", "não há nenhum modelo dono/modelo: confira o nome"),
        (401, "RepoNotFound", "não há nenhum modelo dono/modelo: confira o nome"),
        (401, "", "não aceita o seu token para o modelo dono/modelo (erro 401): crie um token de leitura"),
        (503, "", "não deu o modelo dono/modelo (erro 503): tente daqui a uns minutos"),
        (429, "", "não deu o modelo dono/modelo (erro 429): tente daqui a uns minutos"),
    ],
)
def test_a_hub_that_refuses(
    status: int, code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "Invalid credentials in Authorization header" if (status, code) == (401, "") else ""
    with refusing(status, code, message) as address:
        assert sentence in said(tmp_path, monkeypatch, address)


def test_no_network_and_none_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:9"
    assert "(ConnectError): ligue-se à rede" in said(tmp_path, monkeypatch, nobody)
    assert "HF_HUB_OFFLINE proíbe a rede: tire-o" in said(tmp_path, monkeypatch, nobody, offline=True)


def test_what_mlx_lm_takes_is_downloaded_but_for_programs() -> None:
    assert {*FILES, "*.py", "tiktoken.model"} == {*DEFAULT_ALLOW_PATTERNS}


def test_an_interrupted_download_goes_on_where_it_was(home: Path, tmp_path: Path) -> None:
    Hub.model, Hub.cache = tmp_path / "model", tmp_path / "cache"
    Hub.model.mkdir()
    (Hub.model / "config.json").write_text("{}")
    (Hub.model / "program.py").write_text("raise SystemExit")
    weights = os.urandom(2**20) * 24
    (Hub.model / "model.safetensors").write_bytes(weights)
    with serving(Hub) as address:
        network = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(Hub.cache)}
        environment = {**os.environ, **network, "FARENSE_HOME": str(home)}
        with subprocess.Popen(
            [*FARENSE, "train", "--model", "dono/modelo", "--run", "longe"],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            Hub.victim = process.pid
            out, said = process.communicate(timeout=90)
        assert "o modelo dono/modelo tem 25,2 MB para descarregar; Ctrl-C interrompe" in said
        last = said.splitlines()[-1]
        assert last == "interrompido: o que já veio fica guardado, e da próxima vez continua daí"
        assert (process.returncode, out, "Traceback" in said) == (130, "", False)
        assert not (home / "checkpoints_qlora" / "longe").exists()

        (part,) = Hub.cache.rglob("*.incomplete")
        had = part.stat().st_size
        code = "from farense_qlora.model.download import find_model; print(find_model('dono/modelo'))"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True
        )
        assert Hub.ranges == ["", f"bytes={had}-"]
        assert "tem 25,2 MB para descarregar, dos quais já cá estão" in done.stderr
        folder = Path(done.stdout.strip())
        assert folder.name == COMMIT and (folder / "model.safetensors").read_bytes() == weights
        assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    offline = subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, capture_output=True, check=True
    )  # nobody answers any more
    assert (offline.stdout, offline.stderr) == (done.stdout, "")


def test_weights_that_arrive_damaged_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub.model, Hub.victim = tmp_path / "model", 0
    Hub.model.mkdir()
    weights = Hub.model / "model.safetensors"
    weights.write_bytes(bytes(11_000_000))
    blobs = tmp_path / "cache" / "models--dono--modelo" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{sha256(weights.read_bytes()).hexdigest()}.incomplete"
    part.write_bytes(b"outra coisa")
    with serving(Hub) as address:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(UserError, match="chegou estragado: repita"):
            find_model("dono/modelo")
    assert not any(blobs.iterdir())
