"""Each check of the documentation finds its fault, in a small repository with one fault of each kind."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONG = " ".join(f"palavra{'a' * i}" for i in range(1, 30))
PAGES = {
    "DOCS_INDEX.md": (
        f"# Índice\n\n[guia](docs/guia.md) [nada](docs/nada.md) [longe](docs/guia.md#longe)\n\n{LONG}\n"
    ),
    "docs/guia.md": f"# Guia\n\n{LONG}\n\nUma pallavra.\n",
    "docs/perdida.md": "# Perdida\n" + "linha\n" * 250,
    "docs/blocos.md": (
        "# Blocos\n\n```sh\nexit 3\n```\n\n"
        "<!-- não corre: porque sim -->\n```sh\nexit 4\n```\n\n"
        "```python\nassert 1 == 2\n```\n"
    ),
    "README.md": "# Read me\n\n<!-- not run: for a reason -->\n```sh\nexit 5\n```\n\n```sh\nexit 6\n```\n",
    "docs/saida.md": "# Saída\n\n<!-- saída: echo um -->\n```text\ndois\n```\n",
    "docs/python.md": "# Python\n\n```python\nx = 1\n```\n\n```python\nassert x == 2, 'falha'\n```\n",
    "docs/treino.md": (
        "# Treino\n\n<!-- antes: cat checkpoints_qlora/demo/feito -->\n\n"
        "```sh\ncat checkpoints_qlora/demo/feito\n```\n"
    ),
    "docs/references/INDEX.md": "# Mapa\n\n<!-- gerado: acontecimentos -->\nvelho\n<!-- fim -->\n",
    "docs/troubleshooting/QLORA_X.md": "# Erros\n\n| `mensagem que ninguém dá` | a | b | c |\n",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repo")
    shutil.copytree(ROOT / "docs" / "check", folder / "docs" / "check")
    package = folder / "src" / "farense_qlora"
    shutil.copytree(ROOT / "src" / "farense_qlora", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copyfile(ROOT / name, folder / name)
    for name, text in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def check(repository: Path, name: str, *options: str, code: int = 1) -> str:
    command = [sys.executable, "docs/check", "--only", name, *options]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_page_too_long_is_found(repository: Path) -> None:
    assert "docs/perdida.md: 251 linhas" in check(repository, "comprimento")


def test_words_that_stand_twice_are_found(repository: Path) -> None:
    assert "docs/guia.md:3: repete DOCS_INDEX.md:5" in check(repository, "repetições")


@pytest.mark.skipif(not Path("/usr/share/hunspell/pt_PT.dic").exists(), reason="no Portuguese dictionary")
def test_a_misspelt_word_is_found(repository: Path) -> None:
    assert "docs/guia.md:5: «pallavra»" in check(repository, "ortografia")


def test_an_old_generated_part_is_found(repository: Path) -> None:
    out = check(repository, "gerado")
    assert "docs/references/INDEX.md: «acontecimentos» mudou" in out
    assert "memoria.svg: a figura mudou" in out


def test_a_message_without_a_row_and_a_row_without_its_message_are_found(repository: Path) -> None:
    out = check(repository, "erros")
    assert "falta uma linha em docs/troubleshooting/ para «a pergunta está vazia»" in out
    assert "falta uma linha em docs/troubleshooting/ para «falta a chave, ou não é esta»" in out
    assert "docs/troubleshooting/QLORA_X.md:3: o código já não dá esta mensagem" in out


def test_blocks_that_fail_and_outputs_that_differ_are_found(repository: Path) -> None:
    out = check(repository, "blocos")
    assert "docs/blocos.md:3: acabou com 3" in out
    assert "README.md:8: acabou com 6" in out
    assert "acabou com 4" not in out and "acabou com 5" not in out
    assert "docs/saida.md:4: «echo um» escreve outra coisa: um" in out
    assert "docs/python.md: Python: " in out and "falha" in out


def test_a_run_that_is_made_already_is_where_pages_look_for_it(repository: Path, tmp_path: Path) -> None:
    blocks = repository / "docs" / "check" / "blocks.py"
    whole = "farense-qlora train --profile mini --run demo"
    text = blocks.read_text(encoding="utf-8")
    assert whole in text
    blocks.write_text(text.replace(whole, "cat checkpoints_qlora/demo/feito"), encoding="utf-8")
    (tmp_path / "feito").touch()
    assert "docs/treino.md:5: acabou com 1" in check(repository, "blocos", "--page", "treino")
    check(repository, "blocos", "--page", "treino", "--trained", str(tmp_path), code=0)


def test_a_link_between_pages_says_where_it_leads_and_not_the_name_of_a_file() -> None:
    pages = [ROOT / "DOCS_INDEX.md", *(ROOT / "docs").rglob("*.md")]
    found = [
        name for page in pages for name in re.findall(r"\[[\w/]+\.md\]", page.read_text(encoding="utf-8"))
    ]
    assert set(found) <= {"[README.md]"}  # in English, and of the repository
