"""How answers are chosen: what is out of range is refused in Portuguese, and a model's own advice is read."""

import json
from pathlib import Path

import pytest

from farense_qlora.answers.sampling import GREEDY, Sampling, recommended
from farense_qlora.errors import UserError


@pytest.mark.parametrize(
    "name, value, why",
    [
        ("temperature", -0.1, "tem de ser pelo menos 0"),
        ("temperature", "2,1", "pode ser no máximo 2"),
        ("temperature", "quente", "tem de ser um número"),
        ("temperature", float("nan"), "pode ser no máximo 2"),
        ("top_p", 0, "tem de ser maior do que 0"),
        ("top_p", "1,01", "pode ser no máximo 1"),
        ("seed", -1, "tem de ser pelo menos 0"),
        ("seed", "1,5", "tem de ser um número inteiro"),
        ("top_k", 5, "esta definição não existe"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_reason(name: str, value: object, why: str) -> None:
    with pytest.raises(UserError) as refused:
        Sampling.parse({name: value})
    assert str(refused.value).startswith(f"{name} = ") and why in str(refused.value)


def test_the_limits_themselves_and_decimal_commas_are_taken() -> None:
    assert Sampling.parse({}) == GREEDY
    assert GREEDY.temperature == 0
    assert Sampling.parse({"temperature": "0,7", "top_p": "0,95", "seed": "3"}) == Sampling(
        temperature=0.7, top_p=0.95, seed=3
    )
    assert Sampling.parse({"temperature": 2, "top_p": 1, "seed": 0}).seed == 0


@pytest.mark.parametrize(
    "said, advice",
    [
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.95}, "temperatura 0,6, top-p 0,95"),
        ({"temperature": 0.15}, "temperatura 0,15, top-p 1"),
        ({"do_sample": True, "top_k": 64, "top_p": 0.95}, "temperatura 1, top-p 0,95"),
        ({"do_sample": False, "temperature": 0.6}, None),
        ({"eos_token_id": 2, "temperature": None}, None),
        ({"temperature": 7}, None),
        (["temperature"], None),
    ],
    ids=str,
)
def test_what_the_model_recommends(said: object, advice: str | None, tmp_path: Path) -> None:
    assert recommended(tmp_path) is None
    (tmp_path / "generation_config.json").write_text(json.dumps(said), encoding="utf-8")
    found = recommended(tmp_path)
    assert (found and str(found)) == advice
