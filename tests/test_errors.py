"""Bad input gives one line in Portuguese that names the thing, exit code 2, and no traceback."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import headless
import nbformat
import pytest
from conftest import Command

from farense_qlora.cli import main

Refused = Callable[..., str]


@pytest.fixture
def refused(farense: Command) -> Refused:
    """`refused(*arguments)`: the one line with which `farense-qlora` turns them down."""

    def line(*arguments: object) -> str:
        done = farense(*arguments)
        said = [text for text in done.stderr.splitlines() if text.startswith("erro: ")]
        assert done.returncode == 2, done
        assert len(said) == 1 and "Traceback" not in done.stderr, done.stderr
        assert done.stdout == ""
        return said[0]

    return line


def test_missing_file(refused: Refused, tiny_model: Path) -> None:
    assert "não encontro o ficheiro" in (
        said := refused("train", "--model", tiny_model, "--train-data", "data/perdidos.jsonl")
    )
    assert "perdidos.jsonl" in said


def test_broken_json_line(refused: Refused, tiny_model: Path, tmp_path: Path) -> None:
    good = {"prompt": "Olá?", "completion": "Olá."}
    (tmp_path / "partido.jsonl").write_text(json.dumps(good) + '\n{"prompt": "Olá?", \n', encoding="utf-8")
    said = refused("train", "--model", tiny_model, "--train-data", tmp_path / "partido.jsonl")
    assert "partido.jsonl, linha 2: JSON inválido" in said


def test_empty_data_set(refused: Refused, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "vazio.jsonl").write_text("\n", encoding="utf-8")
    said = refused("train", "--model", tiny_model, "--train-data", tmp_path / "vazio.jsonl")
    assert "vazio.jsonl: não tem nenhuma linha" in said


def test_batch_larger_than_the_data(refused: Refused, tiny_model: Path) -> None:
    said = refused("train", "--model", tiny_model, "--batch-size", 100)
    assert "batch_size = 100" in said and "8 linhas" in said


def test_base_model_without_weights(refused: Refused, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "oca")
    (tmp_path / "oca" / "model.safetensors").unlink()
    said = refused("train", "--model", tmp_path / "oca")
    assert "oca não tem pesos" in said


def test_output_folder_that_cannot_be_written(refused: Refused, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "ficheiro").write_text("", encoding="utf-8")
    said = refused("export", "--run", "decorado", "--to", tmp_path / "ficheiro" / "levar")
    assert str(tmp_path / "ficheiro" / "levar") in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_output_folder(refused: Refused, trained: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    said = refused("export", "--run", "decorado", "--to", tmp_path / "levar")
    assert str(tmp_path / "levar") in said


def test_an_export_replaces_nothing_else(refused: Refused, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "tese.txt").write_text("anos de trabalho", encoding="utf-8")
    assert "não é uma exportação" in refused("export", "--run", "decorado", "--to", tmp_path)
    assert (tmp_path / "tese.txt").exists()


def test_unknown_run_and_missing_questions(refused: Refused, trained: Path) -> None:
    assert "não há nenhum treino chamado «nenhum»" in refused("ask", "Olá?", "--run", "nenhum")
    assert "nada.jsonl" in refused("evaluate", "--run", "decorado", "--data", "nada.jsonl")


def test_adapter_that_is_no_export(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path) in refused("ask", "Olá?", "--adapter", tmp_path)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "--rank", "0"], "rank = '0': tem de ser pelo menos 1"),
        (["train", "--epochs", "muitas"], "epochs = 'muitas': tem de ser um número"),
        (["train", "--bits", "7"], "bits = 7: os valores possíveis são 2, 3, 4, 5, 6, 8 ou 16"),
        (["train", "--profile", "enorme"], "perfil desconhecido: «enorme»"),
        (["train", "--run", ""], "«» não serve de nome"),
        (["train", "--banana"], "argumento desconhecido: --banana"),
        (["train", "--rank"], "--rank: falta o valor"),
        (["treinar"], "«treinar» não existe; há prepare, data, train"),
        (["ask"], "falta indicar: PERGUNTA"),
        (["ask", " "], "a pergunta está vazia"),
        (["ask", "Olá?", "--run", "a", "--adapter", "b"], "--adapter não se pode usar com --run"),
        (["prepare", "--seed", "x"], "--seed: «x» não é um número inteiro"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("erro: ") and said in err and err.count("\n") == 1


def test_in_a_notebook_an_error_is_one_sentence(tmp_path: Path) -> None:
    cell = "import farense_qlora as fq\nfq.Config.of('mini', rank=0)"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), tmp_path / "n.ipynb")
    assert headless.main(tmp_path / "n.ipynb", tmp_path / "out") == 2
    (shown,) = nbformat.read(tmp_path / "out" / "n.ipynb", 4).cells[0].outputs
    assert shown.traceback == ["✗ rank = 0: tem de ser pelo menos 1"]
