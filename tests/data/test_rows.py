"""Rows, hostile ones too: each is accepted, or refused by file, line and reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farense_qlora.data.rows import Row, iterate_rows, read_rows, rejected
from farense_qlora.data.tokens import encode_file
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base

GOOD = '{"prompt": "Foi?", "completion": "Sim."}'
ROW = Row(({"role": "user", "content": "Foi?"}, {"role": "assistant", "content": "Sim."}))


def write(folder: Path, *lines: bytes | str, end: bytes = b"\n") -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + end for line in lines))
    return path


def content(text: str) -> str:
    """A row, with ASCII escapes, that answers `text`."""
    return json.dumps({"prompt": "Foi?", "completion": text})


REFUSED = {
    "invalid UTF-8": (b'{"prompt": "Foi\xff?", "completion": "Sim."}', "UTF-8"),
    "broken JSON": ('{"prompt": "Foi?"', "JSON inválido na coluna 18"),
    "a list": ("[1, 2]", "objeto JSON"),
    "a number": ("3", "objeto JSON"),
    "no field we know": ('{"question": "Foi?"}', "faltam os campos"),
    "a number for text": ('{"prompt": 3, "completion": "Sim."}', "texto não vazio"),
    "an empty answer": (content(""), "texto não vazio"),
    "an answer of blanks": (content(" \n\t"), "texto não vazio"),
    "no messages": ('{"messages": []}', "lista de mensagens"),
    "messages that are text": ('{"messages": "Foi?"}', "lista de mensagens"),
    "a message that is text": ('{"messages": ["Foi?"]}', "role"),
    "an unknown role": ('{"messages": [{"role": "robot", "content": "Sim."}]}', "role"),
    "a role that is a list": ('{"messages": [{"role": ["user"], "content": "Sim."}]}', "role"),
    "no answer at the end": ('{"messages": [{"role": "user", "content": "Foi?"}]}', "última mensagem"),
    "NUL": (content("Sim\x00."), r"U\+0000"),
    "a bidirectional override": (content("Sim\u202e."), r"U\+202E"),
    "half a character": (content("Sim\ud83d."), r"U\+D83D"),
    "a key twice": ('{"prompt": "Foi?", "prompt": "Mas?", "completion": "Sim."}', "«prompt» aparece duas"),
    "a thousand levels": ("[" * 100_000, "JSON"),
    "a number without end": ("9" * 5000, "JSON"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_hostile_row_is_refused_by_line_and_reason(tmp_path: Path, why: str) -> None:
    line, reason = REFUSED[why]
    path = write(tmp_path, GOOD, line, GOOD)
    with pytest.raises(UserError, match=rf"rows\.jsonl, linha 2: .*{reason}"):
        read_rows(path)
    assert read_rows(path, skip_bad=True) == [ROW, ROW]
    (told,) = map(json.loads, rejected(path).read_text(encoding="utf-8").splitlines())
    assert told["line"] == 2 and told["reason"]


@pytest.mark.parametrize(
    "start, end", [(b"", b"\r\n"), (b"\xef\xbb\xbf", b"\n"), (b"", b"\n\n  \n"), (b"", b"")]
)
def test_what_editors_leave_behind_is_accepted(tmp_path: Path, start: bytes, end: bytes) -> None:
    assert read_rows(write(tmp_path, start + GOOD.encode(), end=end)) == [ROW]


def test_all_three_forms_are_rows(tmp_path: Path) -> None:
    messages = json.dumps({"messages": list(ROW.messages)})
    path = write(tmp_path, GOOD, messages, '{"text": "Era uma vez."}')
    assert read_rows(path) == [ROW, ROW, Row(text="Era uma vez.")]


def test_a_folder_of_datasets_is_rows_too(tmp_path: Path, tiny_model: Path) -> None:
    lines = [json.loads(GOOD)] * 3
    Dataset.from_list(lines).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain", *[GOOD] * 3)
    for folder in ("saved", "plain"):
        assert read_rows(tmp_path / folder) == [ROW] * 3
        tokenizer = load_base(str(tiny_model)).tokenizer
        assert len(encode_file(tmp_path / folder, tokenizer, tiny_model, 64)) == 3


def test_nothing_good_left_is_an_error_and_so_is_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nenhuma linha de dados que sirva"):
        read_rows(write(tmp_path, "{}"), skip_bad=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="não consigo ler o conjunto de dados"):
        read_rows(tmp_path / "empty")


def test_a_row_of_ten_megabytes_is_cut_or_refused_by_name(tmp_path: Path, tiny_model: Path) -> None:
    tokenizer = load_base(str(tiny_model)).tokenizer
    path = write(tmp_path, GOOD, content("Sim, foi. " * 1_000_000))
    assert encode_file(path, tokenizer, tiny_model, 64).truncated == 1
    path = write(tmp_path, GOOD, json.dumps({"prompt": "Foi? " * 20_000, "completion": "Sim."}))
    with pytest.raises(UserError, match="linha 2: perde toda a resposta"):
        encode_file(path, tokenizer, tiny_model, 64)
    assert encode_file(path, tokenizer, tiny_model, 64, skip_bad=True).emptied == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["messages", "prompt", "completion", "text", "role", "content", "kind"])
MESSAGE = st.dictionaries(st.sampled_from(["role", "content"]), st.sampled_from(["user", "assistant"]) | JSON)
LINES = (
    st.binary(max_size=60).map(lambda line: line.replace(b"\n", b""))
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(KEYS, JSON | st.lists(MESSAGE, max_size=3)).map(lambda row: json.dumps(row).encode())
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LINES, max_size=6))
def test_whatever_a_file_holds_it_is_read_or_refused_in_words(tmp_path: Path, lines: list[bytes]) -> None:
    path = write(tmp_path, *lines, GOOD)
    rejected(path).unlink(missing_ok=True)
    good = list(iterate_rows(path, skip_bad=True))
    assert good[-1] == (path.read_bytes().count(b"\n"), ROW)
    bad = rejected(path).read_text(encoding="utf-8").splitlines() if rejected(path).exists() else []
    blank = sum(
        not line.removeprefix(b"\xef\xbb\xbf" if i == 0 else b"").strip() for i, line in enumerate(lines)
    )
    assert len(good) + len(bad) + blank == len(lines) + 1
    for _, row in good:
        check(row)
    if bad:
        with pytest.raises(UserError, match=r"linha \d+: \S"):
            read_rows(path)


def check(row: Row) -> None:
    texts = [message["content"] for message in row.messages] or [row.text]
    values: list[Any] = [*texts, row.kind, row.table]
    assert all(isinstance(value, str) for value in values) and all(text.strip() for text in texts)
    assert not row.messages or row.messages[-1]["role"] == "assistant"
    "".join(texts).encode("utf-8")
