"""Tokens: the window cuts and counts; what is left must teach something."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from farense_qlora.config import CACHE, HOME
from farense_qlora.data import tokens
from farense_qlora.data.rows import Row, read_rows
from farense_qlora.data.tokens import encode, encode_file
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base


def row(question: str, answer: str) -> Row:
    return Row(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def test_a_long_row_is_cut_and_counted(tiny_model) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_base(str(tiny_model)).tokenizer
    encoded = encode([row("Olá?", "Sim. " * 40), row("Olá?", "Sim.")], tokenizer, 32)
    assert encoded.truncated == 1
    assert encoded.lengths.tolist()[0] == 32 and encoded.lengths[1] < 32


def test_a_row_whose_answer_is_cut_away_is_refused_by_number(tiny_model) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_base(str(tiny_model)).tokenizer
    with pytest.raises(UserError, match="dados, linha 2: perde toda a resposta"):
        encode([row("Olá?", "Sim."), row("Porquê? " * 40, "Sim.")], tokenizer, 32)


def test_bare_text_is_supervised_to_its_end(tiny_model) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_base(str(tiny_model)).tokenizer
    example = encode([Row(text="Era uma vez em Faro.")], tokenizer, 64)[0]
    assert example.tokens[-1] == tokenizer.eos_token_id and np.all(example.supervised)


def same(one: tokens.Encoded, other: tokens.Encoded) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.supervised, b.supervised) for a, b in pairs
    )


def test_a_file_is_tokenized_once_and_then_mapped(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, tokenizer = HOME / "data" / "val_data.jsonl", load_base(str(tiny_model)).tokenizer
    monkeypatch.setattr(tokens, "ROWS_A_CHUNK", 100)  # several chunks
    counted: list[int] = []
    first = encode_file(path, tokenizer, tiny_model, 512, progress=counted.append)
    again = encode_file(path, tokenizer, tiny_model, 512, progress=counted.append)
    assert sum(counted) == len(first) == 282
    assert same(first, again) and same(first, encode(read_rows(path), tokenizer, 512))
    assert not again[0].tokens.flags.writeable  # it is the file, in memory


def test_other_data_or_another_template_is_tokenized_anew(tiny_model: Path, tmp_path: Path) -> None:
    data, model = tmp_path / "rows.jsonl", tmp_path / "model"
    shutil.copytree(tiny_model, model)
    seen = []
    for answer, end in (("Sim.", ""), ("Mas.", ""), ("Mas.", " Fim")):
        data.write_text(json.dumps({"prompt": "Foi?", "completion": answer}), encoding="utf-8")
        settings = json.loads((tiny_model / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["chat_template"] += end
        (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        tokenizer = load_base(str(model)).tokenizer
        text = tokenizer.decode(encode_file(data, tokenizer, model, 64)[0].tokens.tolist())
        seen.append(text.removeprefix("<s>[INST] Foi? [/INST]"))
    assert seen == ["Sim.</s>", "Mas.</s>", "Mas.</s> Fim"]


def test_a_bad_row_is_named_and_leaves_no_tokens_behind(tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "Foi?", "completion": "Sim."}\n\n{"prompt": 3}\n', encoding="utf-8")
    before = set((CACHE / "tokens").glob("*"))
    with pytest.raises(UserError, match="linha 3"):
        encode_file(data, load_base(str(tiny_model)).tokenizer, tiny_model, 64)
    assert set((CACHE / "tokens").glob("*")) == before
