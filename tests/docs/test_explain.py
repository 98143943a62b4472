"""The arithmetic of the guide agrees with models that are really built, quantized and given adapters."""

import re
from pathlib import Path

import explain
import generated
import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from farense_qlora.config import Config
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.training.cost import MISTRAL_7B, shape_of, weights_gb


def test_parameters_are_those_of_a_model_and_of_its_adapter(tiny_model: Path) -> None:
    base = load_base(Config(model=str(tiny_model), bits=16))
    shape = shape_of(str(tiny_model))
    assert shape is not None and explain.all_parameters(shape) == base.parameters
    config = Config.of("mini", rank=8)
    attach(base.model, config)
    trained = sum(array.size for _, array in tree_flatten(base.model.trainable_parameters()))
    assert shape.trainable(config) == trained


@pytest.mark.parametrize("bits", explain.BITS)
def test_a_weight_takes_the_bits_that_mlx_gives_it(bits: int) -> None:
    weight = mx.zeros((64, 1024), dtype=mx.bfloat16)
    size = sum(part.nbytes for part in mx.quantize(weight, group_size=64, bits=bits))
    assert size / weight.size == pytest.approx(1e9 * weights_gb(MISTRAL_7B, bits) / MISTRAL_7B.parameters)


def test_every_bit_less_loses_more() -> None:
    errors = [explain.rounding_error(bits) for bits in explain.BITS]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0 and errors[0] < 1


def test_seven_billion_parameters_in_four_bits_take_a_quarter_and_a_little() -> None:
    full, lora, qlora = explain.memory().itertuples(index=False, name=None)
    assert explain.all_parameters() == 7_248_023_552
    assert 0.25 < qlora[0] / lora[0] < 0.3 and sum(qlora) < sum(lora) < sum(full)
    assert qlora[1:] == lora[1:]


def test_the_figures_show_the_totals_and_as_many_values_as_4_bits_leave() -> None:
    bars, group = (generated.part(name) for name in ("memoria.svg", "quantizacao.svg"))
    totals = explain.memory().sum(axis=1)
    assert re.findall(r">([\d,]+) GB<", bars) == [f"{total:.1f}".replace(".", ",") for total in totals]
    assert group.count("<circle") == 64 + 1 and 8 < group.count("H910") <= 16
