"""What only a GPU runs (a compiled step, 16-bit weights, long windows), forced upon the CPU."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from tiny import PEOPLE, write_rows
from train_here import train_here
from training.test_loop import stopped_at_look, weights_of

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.exporting.kinds import EXACT
from farense_qlora.exporting.verify import measure, verify
from farense_qlora.model.base import Base, load_base
from farense_qlora.model.cpu import parallel
from farense_qlora.training.events import Evaluated, Finished, Stepped

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All of ours takes this for a GPU; MLX, which knows better, computes on the CPU."""
    default_stream = mx.default_stream
    monkeypatch.setattr(mx, "default_device", lambda: SimpleNamespace(type=mx.DeviceType.gpu))
    monkeypatch.setattr(mx, "default_stream", lambda _: default_stream(mx.cpu))
    parallel.streams.cache_clear()
    mx.enable_compile()
    yield
    mx.disable_compile()
    parallel.streams.cache_clear()


def loaded(config: Config, dtype: str) -> Base:
    base = load_base(config)
    base.model.set_dtype(DTYPES[dtype])
    return base


def config_for(folder: Path, model: Path, **changes: object) -> Config:
    data = str(write_rows(folder / "rows.jsonl", PEOPLE))
    values = {"model": str(model), "train_data": data, "val_data": data, "max_seq_length": 64}
    values |= {"rank": 4, "alpha": 8.0, "batch_size": 2, "learning_rate": 5e-3, "max_steps": 3}
    return Config.of("mini", **{**values, "eval_every": 100, "save_every": 100, "probes": 0, **changes})


# Each pair of settings meets in both states; the three kinds of number take turns.
SETTINGS = ("dropout", "grad_checkpoint", "packing", "grad_accumulation_steps")
ROWS = [(0.1, True, False, 1), (0.1, True, True, 2), (0.1, False, True, 1), (0.0, True, False, 2)]
ROWS += [(0.0, False, True, 2), (0.1, False, False, 2), (0.0, True, True, 1), (0.0, False, False, 1)]


@pytest.mark.parametrize(("settings", "dtype"), list(zip(ROWS, cycle(["bfloat16", "float16", "float32"]))))
def test_an_interrupted_training_goes_on_with_the_same_bits(
    gpu: None, tiny_model: Path, tmp_path: Path, settings: tuple[object, ...], dtype: str
) -> None:
    bits = 4 if settings[1] else 16
    config = config_for(tmp_path, tiny_model, bits=bits, **dict(zip(SETTINGS, settings, strict=True)))
    whole = list(train_here(config, tmp_path / "whole", loaded(config, dtype)))
    assert isinstance(whole[-1], Finished)
    steps = [event for event in whole if isinstance(event, Stepped)]
    losses = [event.loss for event in whole if isinstance(event, Evaluated)]
    assert all(np.isfinite(event.loss) for event in steps) and losses[-1] < losses[0]
    for looks in (2, 1000):
        options = stopped_at_look(looks)
        list(train_here(config, tmp_path / "parts", loaded(config, dtype), **options))
    last = f"checkpoints/step-{whole[-1].step:06d}"
    one, other = weights_of(tmp_path / "whole" / last), weights_of(tmp_path / "parts" / last)
    assert all(array.dtype == mx.float32 for array in one.values())
    assert all(mx.array_equal(one[name], other[name]) for name in one)


def losses_of(config: Config, folder: Path, dtype: str) -> list[float]:
    events = train_here(config, folder, loaded(config, dtype))
    return [event.loss for event in events if isinstance(event, Stepped)]


def test_a_gpu_computes_what_the_cpu_does(
    tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = config_for(tmp_path, tiny_model, bits=16, packing=False, max_steps=6)
    on_the_cpu = losses_of(config, tmp_path / "cpu", "float32")
    request.getfixturevalue("gpu")
    # An NVIDIA card multiplies float32 in TF32: 6e-4 apart on an H100.
    for number, (dtype, within) in enumerate({"float32": 2e-3, "bfloat16": 3e-2, "float16": 1e-2}.items()):
        found = losses_of(config, tmp_path / str(number), dtype)
        assert found == pytest.approx(on_the_cpu, rel=within), dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_to_16_bits_is_no_reason_to_refuse_an_export(
    trained: Path, tiny_model: Path, dtype: str
) -> None:
    config = Config.read(trained / "config.json")
    base, adapter = loaded(config, dtype), trained / "best"
    reference = measure(base, adapter, load_data(config, base).validation, questions=8)
    assert reference.dtype == getattr(mx, dtype)
    report = verify(reference, "mlx", base.path, adapter)
    assert not report.failures and report.limits.top1 < EXACT.top1
    untrained = verify(reference, "mlx", base.path, None)
    assert any(failure.startswith("o treino não sobreviveu") for failure in untrained.failures)
