"""Tokens: kept under a key of all that decides them; the window cuts; bad rows are counted once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farense_qlora.config import CACHE, HOME, Config
from farense_qlora.data import tokens
from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import Encoded, encode, encode_file, read_rows
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base

SHORT = Config(max_seq_length=64)


def row(question: str, answer: str) -> Row:
    return Row(({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


def test_a_long_row_is_cut_and_counted(tiny_model: Path) -> None:
    tokenizer = load_base(Config(model=str(tiny_model))).tokenizer
    encoded = encode([row("Olá?", "Sim. " * 40), row("Olá?", "Sim.")], tokenizer, 32)
    assert encoded.truncated == 1
    assert encoded.lengths.tolist()[0] == 32 and encoded.lengths[1] < 32


def test_a_row_whose_answer_is_cut_away_is_refused_by_number(tiny_model: Path) -> None:
    tokenizer = load_base(Config(model=str(tiny_model))).tokenizer
    with pytest.raises(UserError, match="dados, linha 2: perde toda a resposta"):
        encode([row("Olá?", "Sim."), row("Porquê? " * 40, "Sim.")], tokenizer, 32)


def test_bare_text_is_supervised_to_its_end_and_begins_and_ends_once(tiny_model: Path) -> None:
    tokenizer = load_base(Config(model=str(tiny_model))).tokenizer
    plain = encode([Row(text="Era uma vez em Faro.")], tokenizer, 64)[0]
    assert plain.tokens[-1] == tokenizer.eos_token_id and np.all(plain.supervised)
    marked = encode([Row(text="Era uma vez em Faro.</s></s>")], tokenizer, 64)[0]
    assert plain.tokens.tolist() == marked.tokens.tolist()


def same(one: Encoded, other: Encoded) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.supervised, b.supervised) for a, b in pairs
    )


def test_a_file_is_tokenized_once_and_then_mapped(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, base = HOME / "data" / "val_data.jsonl", load_base(Config(model=str(tiny_model)))
    monkeypatch.setattr(tokens, "ROWS_A_CHUNK", 100)  # several chunks
    counted: list[int] = []
    first = encode_file(path, Config(), base, counted.append)
    again = encode_file(path, Config(), base, counted.append)
    assert sum(counted) == len(first) == 277
    assert same(first, again) and same(first, encode(read_rows(path), base.tokenizer, 512))
    assert not again[0].tokens.flags.writeable  # it is the file, in memory
    assert [found for _, found in again.rows()] == read_rows(path)


def test_other_data_or_another_template_is_tokenized_anew(tiny_model: Path, tmp_path: Path) -> None:
    data, model = tmp_path / "rows.jsonl", tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "additional_chat_templates").mkdir()  # as Transformers keeps several: a folder, and no file
    seen = []
    for answer, start in (("Sim.", ""), ("Mas.", ""), ("Mas.", "Olá! ")):
        data.write_text(json.dumps({"prompt": "Foi?", "completion": answer}), encoding="utf-8")
        settings = json.loads((tiny_model / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["chat_template"] = settings["chat_template"].replace("[INST] ", f"[INST] {start}")
        (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        base = load_base(Config(model=str(model)))
        seen.append(base.tokenizer.decode(encode_file(data, SHORT, base)[0].tokens.tolist()))
    assert seen == [
        "<s>[INST] Foi? [/INST]Sim.</s>",
        "<s>[INST] Foi? [/INST]Mas.</s>",
        "<s>[INST] Olá! Foi? [/INST]Mas.</s>",
    ]


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "sentencepiece.bpe.model", "tokenizer.json"])
def test_what_is_kept_is_of_all_the_tokenizers_files(name: str, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    base = replace(load_base(Config(model=str(tiny_model))), path=model)
    before = tokens._key("data/val_data.jsonl", SHORT, base, 0.0)
    assert tokens._key("data/val_data.jsonl", SHORT, base, 0.0) == before
    with (model / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert tokens._key("data/val_data.jsonl", SHORT, base, 0.0) != before


def test_what_other_code_made_is_made_anew(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(Config(model=str(tiny_model)))
    before = tokens._key("data/val_data.jsonl", SHORT, base, 0.0)
    code = tmp_path / "data"
    shutil.copytree(Path(tokens.__file__).parent, code)
    monkeypatch.setattr(tokens, "__file__", str(code / "tokens.py"))
    assert tokens._key("data/val_data.jsonl", SHORT, base, 0.0) == before
    with (code / "chat.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert tokens._key("data/val_data.jsonl", SHORT, base, 0.0) != before


def test_what_is_kept_and_damaged_is_made_anew(tiny_model: Path, tmp_path: Path) -> None:
    data, base = tmp_path / "rows.jsonl", load_base(Config(model=str(tiny_model)))
    data.write_text('{"prompt": "Quando?", "completion": "Em 1990."}\n', encoding="utf-8")
    before = set((CACHE / "tokens").glob("*.arrow"))
    whole = encode_file(data, SHORT, base)[0].tokens.tolist()
    (kept,) = set((CACHE / "tokens").glob("*.arrow")) - before
    for damage in (kept.read_bytes()[:100], b""):
        kept.unlink()
        kept.write_bytes(damage)
        assert encode_file(data, SHORT, base)[0].tokens.tolist() == whole


def test_every_bad_row_is_named_whatever_is_wrong_with_it(tiny_model: Path, tmp_path: Path) -> None:
    data, base = tmp_path / "rows.jsonl", load_base(Config(model=str(tiny_model)))
    lines = [
        {"prompt": "Foi?", "completion": "Sim."},
        {"prompt": 3, "completion": "Sim."},
        {"prompt": "Foi?", "completion": "Sim.</s>"},
        {"prompt": "Foi? " * 100, "completion": "Sim."},
        {"prompt": "Foi?", "completion": "Não."},
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for _ in range(2):  # tokenized now, and kept
        with pytest.raises(UserError, match="são 3 linhas que não servem") as error:
            encode_file(data, SHORT, base)
        told = [line.strip() for line in str(error.value).removeprefix(f"{data}, ").splitlines()[:3]]
        assert [line.split(":")[0] for line in told] == ["linha 2", "linha 3", "linha 4"]
        assert "«</s>», que é o que faz o modelo parar" in told[1] and "cortada a 64 tokens" in told[2]
    good = encode_file(data, SHORT.changed(skip_bad=True), base)
    assert good.lines.tolist() == [1, 5] and [bad.line for bad in good.bad] == [2, 3, 4]
    alone = encode([row("Foi?", "Sim."), row("Foi?", "Não.")], base.tokenizer, 64)
    assert good.keys.tolist() == alone.keys.tolist() and good.asked.tolist() == alone.asked.tolist()
    assert good.count("text") == good.count("thought") == good.count("folded") == 0


def test_a_row_of_ten_megabytes_is_cut_or_refused_by_name(tmp_path: Path, tiny_model: Path) -> None:
    path, base = tmp_path / "rows.jsonl", load_base(Config(model=str(tiny_model)))
    path.write_text(json.dumps({"prompt": "Foi?", "completion": "Sim, foi. " * 1_000_000}), encoding="utf-8")
    assert encode_file(path, SHORT, base).truncated == 1
    path.write_text(json.dumps({"prompt": "Foi? " * 20_000, "completion": "Sim."}), encoding="utf-8")
    with pytest.raises(UserError, match="linha 1: perde toda a resposta"):
        encode_file(path, SHORT, base)
