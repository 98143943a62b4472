"""Tokens: the window cuts and counts; what is left must teach something."""

import numpy as np
import pytest

from farense_qlora.data.rows import Row
from farense_qlora.data.tokens import encode
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
    with pytest.raises(UserError, match=r"linha de dados n\.º 2"):
        encode([row("Olá?", "Sim."), row("Porquê? " * 40, "Sim.")], tokenizer, 32)


def test_bare_text_is_supervised_to_its_end(tiny_model) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_base(str(tiny_model)).tokenizer
    example = encode([Row(text="Era uma vez em Faro.")], tokenizer, 64).examples[0]
    assert example.tokens[-1] == tokenizer.eos_token_id and np.all(example.supervised)
