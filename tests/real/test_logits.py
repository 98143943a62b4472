"""The folder that is made of the package's file is the model in it: three readers make the same of it."""

import math
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load
from real import models
from real.models import needs_smollm2, smollm2, smollm2_gguf

from farense_qlora.config import Config
from farense_qlora.files import verify
from farense_qlora.model.base import load_base

pytestmark = needs_smollm2
TEXT = "The capital of Portugal is Lisbon. O Farense joga no Estádio de São Luís, em Faro, desde 1922. ⚽"


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """The mean divergence, in nats, of logits (positions, vocabulary)."""
    p, q = (
        x.astype(np.float64) - np.logaddexp.reduce(x.astype(np.float64), -1, keepdims=True) for x in (p, q)
    )
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    _, tokenizer = load(str(smollm2()), lazy=True)[:2]
    return [*tokenizer.encode(TEXT)]


@pytest.fixture(scope="module")
def by_mlx_lm(tokens: list[int]) -> np.ndarray:
    model = load(str(smollm2()))[0]
    return np.array(model(mx.array([tokens]))[0])


def test_the_folder_is_made_once_and_made_again_when_it_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def make(source: Path, folder: Path) -> None:
        made.append(source)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(models, "MODELS", tmp_path)
    monkeypatch.setattr(models, "_make", make)
    folder = smollm2()
    assert smollm2() == folder and made == [smollm2_gguf()]
    (folder / "config.json").write_text("{")
    assert smollm2() == folder and verify(folder) is None and len(made) == 2


def test_mlx_lm_computes_what_pytorch_does(tokens: list[int], by_mlx_lm: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert AutoTokenizer.from_pretrained(smollm2())(TEXT)["input_ids"] == tokens
    model = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32)
    with torch.inference_mode():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    assert np.abs(theirs - by_mlx_lm).max() < 1e-3 * np.abs(theirs).max()
    assert kl(theirs, by_mlx_lm) < 1e-6


def test_llama_cpp_reads_the_packages_own_file_as_the_same_model(
    tokens: list[int], by_mlx_lm: np.ndarray
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    theirs = llama_cpp.Llama(str(smollm2_gguf()), n_ctx=256, logits_all=True, verbose=False)
    assert theirs.tokenize(TEXT.encode(), add_bos=False, special=True) == tokens
    theirs.eval(tokens)
    logits = np.array(theirs.scores[: len(tokens)])
    assert kl(by_mlx_lm, logits) < 0.02  # it rounds what it multiplies to 8 bits


@pytest.mark.parametrize("bits, most", [(16, 1e-6), (4, 1.0)])
def test_the_product_loads_it_as_mlx_lm_does(
    tokens: list[int], by_mlx_lm: np.ndarray, bits: int, most: float
) -> None:
    base = load_base(Config.of("smollm2", model=str(smollm2()), bits=bits))
    assert 134e6 < base.parameters < 136e6 and base.bits == bits
    ours = np.array(base.model(mx.array([tokens]))[0])
    assert kl(by_mlx_lm, ours) < most < math.log(ours.shape[-1])
