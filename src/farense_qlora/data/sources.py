"""Where rows come from: files of many kinds, folders and the hub, as one value a row with its line.

A value that cannot be read is the `ValueError` that says what is wrong with it: one look finds them all.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..config import HOME
from ..errors import UserError, reason
from ..files import in_icloud, sha256
from ..hub import why_not_had
from ..text import counted
from .rows import SHAPES, shape

COLUMNS = {"pergunta": "pergunta", "resposta": "resposta", "sistema": "system", "texto": "text"}
COLUMNS |= {name: name for name in COLUMNS.values()}
FIELDS = set().union(*(fields for fields, _ in SHAPES))
FIELDS |= {"input", "system", "history", "tools", "kind", "table", "fact"}
TABLES = (".csv", ".tsv")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
DELIMITERS = {"\t": "tabulação", ";": "ponto e vírgula", ",": "vírgula"}
CELL = 1_000_000  # characters; more is a quotation mark that nobody closed
# What a spreadsheet would compute (and could be made to run): a cell that begins so is no text to learn.
FORMULA = re.compile(r"\s*(=|[-+@][\w.+\-*/ ]*\w\(|[-+@].*\w\|)")
VALIDATION = ("validation", "valid", "val")
UTF8_MARK, UTF16 = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")

Value = tuple[int, Any]


class BadTextError(ValueError):
    """Bytes that are no text in the encoding, on their `line`, or an object with two values under a key."""

    line = 1


def parse_columns(text: str) -> dict[str, str]:
    """The setting `columns` as {our field: their column}; raises `UserError`.

    >>> parse_columns("pergunta=Q,resposta=A")
    {'pergunta': 'Q', 'resposta': 'A'}
    """
    columns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        ours, _, theirs = (word.strip() for word in part.partition("="))
        if not theirs or ours not in COLUMNS:
            raise UserError(
                f"columns: não percebo «{part}»; escreva, por exemplo, pergunta=Q,resposta=A (à esquerda: "
                "pergunta, resposta, sistema ou texto)"
            )
        columns[COLUMNS[ours]] = theirs
    if columns and not ({"text"} <= set(columns) or {"pergunta", "resposta"} <= set(columns)):
        raise UserError("columns: diga a pergunta e a resposta (pergunta=Q,resposta=A), ou o texto (texto=T)")
    return columns


def read_values(source: str, columns: Mapping[str, str], encoding: str = "utf-8") -> Iterator[Value]:
    """The values of `source`, each with its line: a file, a folder or an id of the hub (of which the split
    "train" is taken, or that after a colon). Raises `UserError` when it cannot be read at all."""
    path = HOME / source
    kind = path.suffix.lower()
    try:
        if not path.is_file():
            yield from enumerate(_dataset(source), start=1)
        elif kind in SPREADSHEETS:
            raise UserError(
                f"{path} é uma folha de cálculo: guarde-a como CSV UTF-8 (Ficheiro → Guardar como)"
            )
        elif kind in TABLES:
            yield from _table(path, columns, encoding)
        elif kind in (".parquet", ".arrow"):
            yield from enumerate(_arrow(path), start=1)
        else:
            yield from _json(path, columns, encoding)
    except OSError as error:
        raise UserError(f"não consigo ler {path}: {reason(error)}") from None


def fingerprint(source: str) -> str:
    """What changes when the rows of `source` do; raises `UserError` if there are none."""
    path = HOME / source
    return sha256(path) if path.is_file() else str(_dataset(source)._fingerprint)


def size(source: str) -> tuple[int, int] | None:
    """Bytes and rows of `source`, about, without reading it through; None for one that is not here yet.

    Raises `UserError` for a file that does not exist.
    """
    path, _ = _find(source)
    files = [path] if path.is_file() else path.rglob("*")
    kinds = (*TABLES, ".json", ".jsonl", ".parquet")
    found = [(file, file.stat()) for file in files if file == path or file.suffix in kinds]
    if not found:
        return None
    rows = sum(max(1, _count(str(file), about.st_mtime_ns)) for file, about in found)
    return sum(about.st_size for _, about in found), rows


@lru_cache(maxsize=64)
def _count(path: str, _changed: int) -> int:
    """The rows of a file, about: its lines, less the header of a table."""
    if path.endswith(".parquet"):
        from pyarrow import parquet

        return int(parquet.ParquetFile(path).metadata.num_rows)
    with open(path, "rb") as file:
        return sum(1 for line in file if line.strip()) - path.endswith(TABLES)


def beside(source: str) -> str | None:
    """The source of validation rows that lies beside the training rows of `source`, if there is one."""
    path = HOME / source
    if path.is_file():
        near = [path.with_name(f"{name}{path.suffix}") for name in VALIDATION]
        found = next((one for one in near if one.is_file() and one != path), None)
        return str(Path(source).with_name(found.name)) if found else None
    splits = [name for name in VALIDATION if any(path.glob(f"{name}*.*"))]
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
    return next((f"{source}:{name}" for name in VALIDATION if name in splits), None)


def _find(source: str) -> tuple[Path, str]:
    """The file or folder of `source` and its split; the path is not there when it may be an id of the hub.

    Raises `UserError` when it cannot be one.
    """
    name, _, split = source.rpartition(":") if ":" in source else (source, "", "train")
    path = HOME / name
    if not path.exists() and (path.suffix or Path(name).is_absolute() or name.count("/") != 1):
        away = in_icloud(path) or "; «farense-qlora prepare» cria os dados do Farense"
        raise UserError(f"não encontro o ficheiro {path}{away}")
    return path, split


def _json(path: Path, columns: Mapping[str, str], encoding: str) -> Iterator[Value]:
    """JSON lines, or one JSON array."""
    with open(path, "rb") as file:
        start, lines = file.peek(4), iter(file)
        if start[:2] in UTF16 or start.removeprefix(UTF8_MARK).lstrip()[:1] == b"[":
            data, encoding = _decoded(path, encoding).encode(), "utf-8"
            if data.lstrip()[:1] == b"[":
                if isinstance(values := _parsed(data), ValueError):
                    raise UserError(f"{path}: {values}")
                yield from enumerate(values, start=1)
                return
            lines = iter(data.split(b"\n"))
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        head = list(islice(numbered, 2))
        texts = [line.removeprefix(UTF8_MARK).decode(errors="replace").strip() for _, line in head]
        # A bad row has objects about it.
        if texts and "JSON inválido" in str(_parsed(texts[0].encode())) and not texts[-1].startswith("{"):
            if _header(texts[0], columns):
                raise UserError(f"{path}: isto parece CSV: mude a extensão para .csv")
            raise UserError(
                f"{path}: espera-se um objeto JSON por linha, ou uma lista deles, e o ficheiro começa por "
                f"«{texts[0][:80]}»"
            )
        yield from ((number, _parsed(line, encoding)) for number, line in chain(head, numbered))


def _parsed(data: bytes, encoding: str = "utf-8") -> Any:
    """The value of some JSON, or the `ValueError` that says what is wrong with it."""
    try:
        return json.loads(_text(data, encoding).rstrip(), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        where = f"linha {error.lineno}, " if "\n" in error.doc.strip() else ""
        return ValueError(f"JSON inválido na {where}coluna {error.colno}")
    except RecursionError:
        return ValueError("JSON com demasiados níveis")
    except BadTextError as error:
        return error
    except ValueError:  # a number of thousands of digits
        return ValueError("JSON com um número que não se consegue ler")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [key for key, _ in pairs]
        raise BadTextError(f"a chave «{max(names, key=names.count)}» aparece duas vezes")
    return values


def _text(data: bytes, encoding: str) -> str:
    """`data` in `encoding`, without a mark at its start; Latin-1 is what Windows calls so, and only where
    it is no UTF-8, which it never is by chance.

    Raises `BadTextError`.
    """
    if encoding == "latin-1":
        with suppress(UnicodeDecodeError):
            return data.decode().removeprefix("\ufeff")
    try:
        return data.decode("cp1252" if encoding == "latin-1" else encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        hint = "; se for Latin-1 (Windows), diga --encoding latin-1" if encoding == "utf-8" else ""
        bad = BadTextError(f"não é texto {encoding.upper()} (byte {error.start + 1}){hint}")
        bad.line = data[: error.start].count(b"\n") + 1
        raise bad from None


def _decoded(path: Path, encoding: str) -> str:
    """The whole text of `path`; raises `UserError` naming the line that cannot be read."""
    data = path.read_bytes()
    try:
        return _text(data, "utf-16" if data[:2] in UTF16 else encoding)
    except BadTextError as error:
        raise UserError(f"{path}, linha {error.line}: {error}") from None


def _table(path: Path, columns: Mapping[str, str], encoding: str) -> Iterator[Value]:
    """The rows of a CSV or TSV, with the separator by which its first line names columns that we know."""
    text = _decoded(path, encoding)
    marked = re.match(r"sep=.\r?\n", text)  # as Excel writes it
    skipped, text = (1, text[marked.end() :]) if marked else (0, text)
    first = text.split("\n", 1)[0].rstrip("\r")
    if not (found := _header(first, columns)):
        wanted = ", ".join(columns.values()) or "como «pergunta» e «resposta»"
        raise UserError(
            f"{path}: não reconheço as colunas ({wanted}) na primeira linha, «{first[:80]}», separada por "
            f"{', '.join(DELIMITERS.values())}; diga quais são com --columns pergunta=…,resposta=…"
        )
    delimiter, header = found
    csv.field_size_limit(CELL)
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    next(rows)
    line = 2 + skipped
    try:
        for cells in rows:
            if any(cells):
                yield line, _cells(header, cells, DELIMITERS[delimiter])
            line = rows.line_num + 1 + skipped
    except csv.Error as error:
        what = "uma célula com mais de um milhão de letras" if "limit" in str(error) else str(error)
        yield line, ValueError(f"não é CSV: {what} (falta fechar aspas?)")


def _header(line: str, columns: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The separator by which `line` names columns that we know, and all that it names."""
    for delimiter in DELIMITERS:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        header = [name.casefold() if name.casefold() in FIELDS else name for name in names]
        if set(columns.values()) <= set(header) if columns else shape(dict.fromkeys(header, "")):
            return delimiter, header
    return None


def _cells(header: list[str], cells: list[str], delimiter: str) -> dict[str, str] | ValueError:
    if len(cells) != len(header):
        return ValueError(
            f"tem {counted(len(cells), 'célula')} e o cabeçalho {len(header)} (separador: {delimiter})"
        )
    if formula := next(filter(FORMULA.match, cells), None):
        return ValueError(
            f"a célula {formula[:30]!r} é uma fórmula: guarde o valor, ou ponha-lhe um apóstrofo"
        )
    return dict(zip(header, cells, strict=True))


def _arrow(path: Path) -> Iterator[Any]:
    """The rows of a Parquet or Arrow file, a block at a time."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    try:
        if path.suffix.lower() == ".parquet":
            batches = parquet.ParquetFile(path).iter_batches()
        else:
            file = pa.memory_map(str(path))
            read = ipc.open_file if file.read(6) == b"ARROW1" else ipc.open_stream
            file.seek(0)
            batches = read(file).read_all().to_batches()
        for batch in batches:
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"não consigo ler {path}: {' '.join(str(error).split())}") from None


def _dataset(source: str) -> Any:
    """The dataset in the folder `source`, or the one on the hub that is called so, "owner/name"."""
    path, split = _find(source)
    from datasets import DatasetDict, config, load_dataset, load_from_disk
    from huggingface_hub import HfApi
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # of each try that failed
    name = str(path) if path.is_dir() else source.rpartition(":")[0] or source
    offline, refused = config.HF_HUB_OFFLINE, None
    try:
        if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
            data = load_from_disk(str(path))
            return data[split] if isinstance(data, DatasetDict) else data
        if not path.is_dir():
            try:
                HfApi().auth_check(name, repo_type="dataset")  # the library hides why the hub refused it
            except Exception as cause:
                refused = cause
        if type(refused).__name__ in ("ConnectError", "ConnectTimeout"):
            config.HF_HUB_OFFLINE = True  # it would try for 20 seconds before it looks in its cache
        return load_dataset(name, split=split)
    except Exception as error:  # the library and the hub's client raise a dozen unrelated types
        if refused:
            raise UserError(why_not_had(name, refused, "dataset")) from None
        why = " ".join(str(error).split())
        raise UserError(f"não consigo ler o conjunto de dados {source}: {why}") from None
    finally:
        config.HF_HUB_OFFLINE = offline
