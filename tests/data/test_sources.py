"""Files of every kind, hostile ones too: each row is read as it stands, or named by its line."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from hub import refusing
from huggingface_hub import constants

from farense_qlora.config import Config
from farense_qlora.data.rows import Row, parse_row
from farense_qlora.data.sources import beside, fingerprint, parse_columns, size
from farense_qlora.data.tokens import read_rows
from farense_qlora.errors import UserError

PAIRS = [("Em que posição ficou?", "Em 5.º lugar."), ("Quem foi o Zé?", "Foi treinador; e jogador, também.")]
ROWS = [parse_row({"prompt": question, "completion": answer}) for question, answer in PAIRS]
LINES = [{"pergunta": question, "resposta": answer} for question, answer in PAIRS]


def jsonl(rows: list[dict[str, str]] = LINES) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def csv(separator: str, header: str = "pergunta{}resposta") -> str:
    rows = "".join(f'"{question}"{separator}"{answer}"\n' for question, answer in PAIRS)
    return f"{header.format(separator)}\n{rows}"


FILES: dict[str, tuple[str, bytes]] = {
    "JSON lines": ("r.jsonl", jsonl().encode()),
    "JSON lines with CRLF and blanks": ("r.jsonl", jsonl().replace("\n", "\r\n\r\n").encode()),
    "JSON lines with a BOM": ("r.jsonl", b"\xef\xbb\xbf" + jsonl().encode()),
    "JSON lines in UTF-16": ("r.jsonl", jsonl().encode("utf-16")),
    "JSON lines without an end": ("r.jsonl", jsonl().rstrip().encode()),
    "a JSON array": ("r.json", json.dumps(LINES).encode()),
    "a JSON array over lines": ("r.json", json.dumps(LINES, indent=2, ensure_ascii=False).encode()),
    "commas": ("r.csv", csv(",").encode()),
    "semicolons": ("r.csv", csv(";").encode()),
    "tabs": ("r.tsv", csv("\t").encode()),
    "tabs under another name": ("r.csv", csv("\t").encode()),
    "a CSV of Excel's": ("r.csv", b"\xef\xbb\xbf" + csv(";").replace("\n", "\r\n").encode()),
    "a CSV with Excel's first line": ("r.csv", ("sep=;\n" + csv(";")).encode()),
    "Excel's Unicode text": ("r.tsv", csv("\t").encode("utf-16")),
    "a header with capitals": ("r.csv", csv(";", "Pergunta{} Resposta ").encode()),
    "a column more": ("r.csv", b"id;" + csv(";").replace('\n"', '\n7;"').encode()),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    name, data = FILES[kind]
    (tmp_path / name).write_bytes(data)
    assert read_rows(tmp_path / name) == ROWS


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "r.parquet": lambda table, path: pa.parquet.write_table(table, path),
    "r.arrow": lambda table, path: pa.feather.write_feather(table, path, compression="uncompressed"),
    "s.arrow": lambda table, path: _stream(table, path),
    "saved": lambda table, path: Dataset(table).save_to_disk(str(path)),
    "split": lambda table, path: DatasetDict(train=Dataset(table)).save_to_disk(str(path)),
    "folder": lambda table, path: (path.mkdir(), pa.parquet.write_table(table, path / "train.parquet")),
}


def _stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("name", WRITERS)
def test_columns_on_disk_are_rows_too(tmp_path: Path, name: str) -> None:
    WRITERS[name](pa.Table.from_pylist(LINES), tmp_path / name)
    assert read_rows(tmp_path / name) == ROWS
    assert fingerprint(str(tmp_path / name)) == fingerprint(str(tmp_path / name))


def test_latin_1_is_named_and_read_when_told(tmp_path: Path) -> None:
    for name, text in (("r.csv", csv(";")), ("r.jsonl", jsonl())):
        (tmp_path / name).write_bytes(text.encode("cp1252"))
        with pytest.raises(UserError, match=r"linha [12].*não é texto UTF-8.*--encoding latin-1"):
            read_rows(tmp_path / name)
        assert read_rows(tmp_path / name, encoding="latin-1") == ROWS
        (tmp_path / name).write_text(text, encoding="utf-8")  # as its validation may be
        assert read_rows(tmp_path / name, encoding="latin-1") == ROWS
    for name in ("cp1252", "Windows-1252", "ANSI"):
        assert Config(encoding=name).encoding == "latin-1"  # type: ignore[arg-type]


def test_other_columns_are_taken_when_said(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(csv(";", "Q{}A"), encoding="utf-8")
    with pytest.raises(UserError, match=r"não reconheço as colunas .* «Q;A».*--columns"):
        read_rows(path)
    assert read_rows(path, columns="pergunta=Q,resposta=A") == ROWS
    with pytest.raises(UserError, match=r"não reconheço as colunas \(Q, B\)"):
        read_rows(path, columns="pergunta=Q,resposta=B")


@pytest.mark.parametrize(
    "text, said",
    [
        ("Q", "não percebo «Q»"),
        ("pergunta=Q", "diga a pergunta e a resposta"),
        ("cor=Q", "não percebo «cor=Q»"),
    ],
)
def test_columns_that_make_no_row_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_columns(text)


HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "the wrong separator": ("r.csv", csv("|").encode(), "não reconheço as colunas"),
    "a cell too many": (
        "r.csv",
        b"pergunta,resposta\na,b\nc,d,e\n",
        "linha 3: tem 3 células e o cabeçalho 2",
    ),
    "a cell too few": ("r.csv", b"pergunta;resposta\na;b\nc\n", "linha 3: tem 1 célula e o cabeçalho 2"),
    "a row over lines before it": ("r.csv", b'pergunta,resposta\n"a\nb",c\nd\n', "linha 4: tem 1 célula "),
    "a cell of 10 MB": (
        "r.csv",
        b'pergunta,resposta\na,"' + b"b" * 10_000_000,
        "linha 2: .*um milhão de letras",
    ),
    "a quotation mark that is not closed": ("r.csv", b'pergunta,resposta\na,"b\nc,d\n', "linha 2: não é CSV"),
    "a formula": ("r.csv", b"pergunta,resposta\na,=1+1\n", "linha 2: a célula '=1.1' é uma fórmula"),
    "a link": ("r.csv", b'pergunta,resposta\na,"=HYPERLINK(""http://x"")"\n', "linha 2: .*é uma fórmula"),
    "a command": ("r.csv", b"pergunta,resposta\n@SUM(1+1)*cmd|' /C calc'!A0,b\n", "linha 2: .*é uma fórmula"),
    "another command": (
        "r.csv",
        b"pergunta,resposta\n-2+3+cmd|' /C calc'!A0,b\n",
        "linha 2: .*é uma fórmula",
    ),
    "NUL": ("r.csv", b"pergunta,resposta\na,b\x00c\n", r"linha 2: .*U\+0000"),
    "an empty answer": (
        "r.csv",
        b"pergunta,resposta\na,\n",
        "linha 2: «resposta» tem de ser texto não vazio",
    ),
    "a header alone": ("r.csv", b"pergunta,resposta\n", "não tem nenhuma linha"),
    "nothing": ("r.csv", b"", "não reconheço as colunas"),
    "half of UTF-16": ("r.csv", csv(";").encode("utf-16")[:-1], "não é texto UTF"),
    "invalid UTF-8": ("r.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "linha 2: não é texto UTF-8"),
    "broken JSON": ("r.jsonl", b'{"prompt": "Foi?"', "linha 1: JSON inválido na coluna 18"),
    "a CSV that is called otherwise": (
        "r.jsonl",
        csv(";").encode(),
        "parece CSV: mude a extensão para .csv$",
    ),
    "an object over lines": (
        "r.json",
        json.dumps(LINES[0], indent=2).encode(),
        "espera-se um objeto JSON por linha.*«{»$",
    ),
    "no data": ("r.md", b"# Um texto\n\nSobre o Farense.\n", "por linha.*«# Um texto»$"),
    "a broken first row": (
        "r.jsonl",
        b'{"text": a"}\n{"text": "b"}\n',
        "linha 1: JSON inválido na coluna 10$",
    ),
    "a key twice": ("r.jsonl", b'{"text": "a", "text": "b"}', "a chave «text» aparece duas vezes"),
    "a thousand levels": ("r.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, "linha 2: JSON"),
    "a number without end": ("r.jsonl", b"9" * 5000, "linha 1: JSON com um número"),
    "a broken array": ("r.json", b'[{"text": "a"},\n', "JSON inválido"),
    "mixed shapes": (
        "r.jsonl",
        b'{"text": "a"}\n{"prompt": "a", "answer": "b"}\n',
        "linha 2: faltam os campos",
    ),
    "a picture": ("r.parquet", b"\x89PNG" + bytes(100), "arquet"),
    "half an Arrow file": ("r.arrow", b"ARROW1" + struct.pack("<q", 9), ": "),
    "a spreadsheet itself": ("r.xlsx", b"PK", "guarde-a como CSV UTF-8"),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, why: str) -> None:
    name, data, said = HOSTILE[why]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"(?s){name}.*{said}"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["- um traço", "+351 289 000 000", "@farense", "-5", "1 = 1", "(=)", "- Marcou (dois)"]
)
def test_text_that_only_looks_like_a_formula_is_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.csv").write_text(f'pergunta;resposta\na;"{text}"\n', encoding="utf-8")
    assert read_rows(tmp_path / "r.csv")[0].messages[1]["content"] == text


def test_all_bad_rows_are_in_one_error(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "a"}\n' + 25 * '{"text": 3}\n' + '{"text": "b"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"são 25 linhas que não servem: .*--skip-bad") as error:
        read_rows(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path}, linha 2: «text» tem de ser texto não vazio" and len(lines) == 20 + 1 + 1
    assert lines[1].startswith("  linha 3: ") and lines[-2].strip() == "e mais 5"
    assert read_rows(path, skip_bad=True) == [Row(text="a"), Row(text="b")]
    path.write_text('{"text": 3}\n', encoding="utf-8")
    with pytest.raises(UserError, match="nenhuma linha de dados que sirva"):
        read_rows(path, skip_bad=True)


def test_validation_rows_beside_the_training_rows_are_found(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(jsonl(), encoding="utf-8")
    assert beside(str(tmp_path / "r.jsonl")) is None
    (tmp_path / "valid.jsonl").write_text(jsonl(), encoding="utf-8")
    assert beside(str(tmp_path / "r.jsonl")) == str(tmp_path / "valid.jsonl")
    table = Dataset.from_list(LINES)
    DatasetDict(train=table, validation=table).save_to_disk(str(tmp_path / "sets"))
    assert beside(str(tmp_path / "sets")) == f"{tmp_path / 'sets'}:validation"
    assert read_rows(f"{tmp_path / 'sets'}:validation") == ROWS


@pytest.mark.parametrize(
    "status, code, sentence",
    [
        (401, "GatedRepo", "aceite-a em huggingface.co/datasets/dono/linhas, crie um token"),
        (404, "RepoNotFound", "não há nenhum conjunto de dados dono/linhas: confira o nome"),
        (503, "", r"não deu o conjunto de dados dono/linhas \(erro 503\): tente daqui a uns minutos$"),
    ],
)
def test_a_dataset_that_the_hub_does_not_give(
    status: int, code: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between the client's tries
    with refusing(status, code) as address:
        ask(address, monkeypatch)
        with pytest.raises(UserError, match=sentence):
            read_rows("dono/linhas:test")
    assert "Retry" not in capfd.readouterr().err


def ask(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub be at `address`."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_without_a_network_a_dataset_is_refused_at_once_unless_it_was_had_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"dono/linhas do Hugging Face Hub \(ConnectError\): ligue-se à rede"):
        read_rows("dono/linhas:test")
    (tmp_path / "r.jsonl").write_text(jsonl(), encoding="utf-8")
    load_dataset("json", data_files={"test": str(tmp_path / "r.jsonl")}, cache_dir=str(tmp_path))
    (had,) = tmp_path.glob("json/*/*/*/json-test.arrow")
    shutil.copytree(had.parent, tmp_path / "dono___linhas" / "default" / "0.0.0" / had.parent.name)
    (kept,) = tmp_path.glob("dono___linhas/*/*/*/json-test.arrow")
    kept.rename(kept.with_name("linhas-test.arrow"))  # as if it had been downloaded
    assert read_rows("dono/linhas:test") == ROWS
    assert time.monotonic() - began < 5 and not datasets.config.HF_HUB_OFFLINE


def test_the_size_of_a_source_is_known_at_once(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(csv(";"), encoding="utf-8")
    assert size(str(tmp_path / "r.csv")) == ((tmp_path / "r.csv").stat().st_size, 2)
    (tmp_path / "d").mkdir()
    pa.parquet.write_table(pa.Table.from_pylist(LINES), tmp_path / "d" / "train.parquet")
    assert (size(str(tmp_path / "d")) or (0, 0))[1] == 2
    assert size("dono/nome") is None
    with pytest.raises(UserError, match="não encontro o ficheiro"):
        size(str(tmp_path / "nada.jsonl"))
    with pytest.raises(UserError, match="não encontro o ficheiro"):
        read_rows(tmp_path / "nada.jsonl")
    (tmp_path / ".nada.jsonl.icloud").touch()
    with pytest.raises(UserError, match="só na iCloud"):
        read_rows(tmp_path / "nada.jsonl")
    (tmp_path / "vazia").mkdir()
    with pytest.raises(UserError, match="não consigo ler o conjunto de dados"):
        read_rows(tmp_path / "vazia")
