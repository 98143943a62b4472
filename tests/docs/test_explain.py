"""The arithmetic of the guide agrees with models that are really built, quantized and given adapters."""

from pathlib import Path

import explain
import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from farense_qlora.config import Config
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.training.cost import shape_of


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
    assert 8 * size / weight.size == explain.bits_per_weight(bits)


def test_every_bit_less_loses_more() -> None:
    errors = [explain.rounding_error(bits) for bits in explain.BITS]
    assert errors == sorted(errors, reverse=True) and errors[-1] > 0 and errors[0] < 1


def test_seven_billion_parameters_in_four_bits_take_a_quarter_and_a_little() -> None:
    full, lora, qlora = explain.memory().values()
    assert explain.all_parameters() == 7_248_023_552
    assert 0.25 < qlora.base / lora.base < 0.3 and qlora.total < lora.total < full.total
    assert qlora.trained == lora.trained


def test_the_figures_draw() -> None:
    labels = [text.get_text() for text in explain.memory_bars().axes[0].texts]
    totals = [f"{row.total:.1f} GB".replace(".", ",") for row in explain.memory().values()]
    assert labels[-3:] == totals
    assert explain.quantized_group().axes[0].lines
