"""What the plan says of several computers follows from what one computes and what is sent."""

import pytest

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training import plan as plan_module
from farense_qlora.training.cost import MISTRAL_7B
from farense_qlora.training.plan import plan


def test_the_plan_of_a_7b(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.of("mistral-7b").changed(max_seq_length=512)
    monkeypatch.setattr(plan_module, "known_lengths", lambda config: None)
    table = plan(config, tokens_per_s=400.0)
    rows = config.batch_size * config.grad_accumulation_steps
    seconds, message = rows * 512 / 400, 4 * MISTRAL_7B.trainable(config)
    assert f"{message / 1e6:.1f}".replace(".", ",") in table.caption
    # Two computers send the whole gradient once, each way.
    two = seconds / (seconds / 2 + message / 0.117e9 + 5 * 2 * 200e-6)
    assert table.iloc[1]["1 Gb/s"].startswith(f"{two:.1f} ×".replace(".", ","))
    assert table.iloc[0]["10 Gb/s"] == "1,0 × (0 % na rede)"
    half = plan(config.changed(reduce_dtype="bfloat16"), tokens_per_s=400.0)
    assert f"{message / 2e6:.1f}".replace(".", ",") in half.caption
    assert half.iloc[1]["1 Gb/s"] > table.iloc[1]["1 Gb/s"]
    # More computers than rows compute no faster, and send more.
    assert table.iloc[5]["1 Gb/s"] < table.iloc[4]["1 Gb/s"]


def test_without_a_measure_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="corra primeiro «farense-qlora fit»"):
        plan(Config.of("mistral-7b"))
