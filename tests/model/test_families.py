"""Each family of models does what docs/references/MODELOS.md says of it, and is refused where it says so."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from model.families import FAMILIES
from model.family_checks import CHECKS, RECORD, VERSIONS, outcomes

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
AGAIN = "python tests/model/family_checks.py writes it again, and make docs-update the page"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_does_what_is_written_of_it(
    family: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    found, written = outcomes(family, tiny_model, tmp_path), RECORDED["families"][family]
    assert found == {name: written[name] for name in found}, AGAIN


def test_every_family_has_every_check_and_a_refusal_says_what_to_do() -> None:
    assert list(RECORDED["families"]) == list(FAMILIES)
    for family, found in RECORDED["families"].items():
        assert tuple(found) == ("model_type", *CHECKS), family
        for why in filter(None, [found[name] for name in CHECKS]):
            assert re.search(r"[:;] (escolha|desligue|exporte) ", why), (family, why)


def test_it_was_written_with_the_versions_that_are_installed() -> None:
    assert RECORDED["versions"] == {package: version(package) for package in VERSIONS}, AGAIN
