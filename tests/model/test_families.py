"""Each family of models does what docs/references/MODELOS.md says of it, and is refused where it says so."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from converting import LLAMA_CPP, converter_version, write_known
from model.families import FAMILIES, build
from model.family_checks import CHECKS, RECORD, VERSIONS, outcomes

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
AGAIN = "python tests/model/family_checks.py writes it again, and make docs-update the page"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """A tokenizer that llama.cpp's converter knows, where that is."""
    return write_known(tmp_path_factory.mktemp("known") / "tokenizer") if LLAMA_CPP else None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_does_what_is_written_of_it(
    family: str, tiny_model: Path, known: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    found, written = outcomes(family, tiny_model, tmp_path, known), RECORDED["families"][family]
    assert found == {name: written[name] for name in found}, AGAIN


@pytest.mark.parametrize(
    "family, changes, why",
    [
        ("GPT-2", {"n_positions": 256}, "só aprendeu 256 posições: ponha max_seq_length em 256"),
        ("GPT-2", {"model_type": "gpt_bigcode"}, "não responde a várias perguntas .* «gpt_bigcode»: escolha"),
        ("Llama 4, só texto", {"tie_word_embeddings": True}, "não consigo carregar o modelo"),
    ],
    ids=["too long", "no batches", "broken"],
)
def test_what_would_fail_later_is_refused_when_it_is_loaded(
    family: str, changes: dict[str, object], why: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = build(family, tiny_model, tmp_path / "base", **changes)
    with pytest.raises(UserError, match=why):
        load_base(Config(model=str(folder), bits=4, max_seq_length=512))


def test_every_family_has_every_check_and_a_refusal_says_what_to_do() -> None:
    assert list(RECORDED["families"]) == list(FAMILIES)
    for family, found in RECORDED["families"].items():
        assert tuple(found) == ("model_type", *CHECKS), family
        for why in filter(None, [found[name] for name in CHECKS]):
            assert re.search(r"[:;] (escolha|desligue|exporte)", why), (family, why)


def test_it_was_written_with_the_versions_that_are_installed() -> None:
    assert RECORDED["versions"] == {package: version(package) for package in VERSIONS}, AGAIN
    assert not LLAMA_CPP or RECORDED["converter"] == converter_version(), AGAIN
