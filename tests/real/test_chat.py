"""The proof of `data/test_chat.py` on a tokenizer and a template that somebody else made: SmolLM2's."""

from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer
from real.models import needs_smollm2, smollm2

from farense_qlora.data.chat import encode_row, prompt_tokens
from farense_qlora.data.rows import parse_row

pytestmark = needs_smollm2

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
def tokenizer() -> Any:
    return load_tokenizer(smollm2())


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
