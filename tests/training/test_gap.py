"""The gap between training and validation, and its verdict."""

import pytest

from farense_qlora.training.events import Evaluated, Stepped
from farense_qlora.training.gap import gap


def run(train_loss: float, val_loss: float) -> list:
    steps = [
        Stepped(
            step=n,
            time=0.0,
            epoch=n / 8,
            loss=9.0 if n < 6 else train_loss,
            learning_rate=0.1,
            grad_norm=1.0,
            supervised_tokens=10,
            tokens=30,
            positions=32,
            seconds=0.1,
            peak_memory_gb=0.1,
        )
        for n in range(1, 9)
    ]
    return [*steps, Evaluated(step=8, time=0.0, epoch=1.0, loss=val_loss, best=True, seconds=0.1)]


@pytest.mark.parametrize(
    ("val_loss", "verdict"),
    [(0.4, "excelente"), (0.54, "excelente"), (0.6, "bom"), (0.7, "moderado"), (0.9, "crítico")],
)
def test_the_verdict_follows_the_gap(val_loss: float, verdict: str) -> None:
    result = gap(run(0.5, val_loss))
    assert result is not None and result.verdict == verdict
    assert result.gap == pytest.approx(val_loss - 0.5) and result.train_loss == pytest.approx(0.5)


def test_there_is_none_before_the_first_evaluation() -> None:
    assert gap(run(0.5, 0.5)[:-1]) is None
