"""What a config will cost is estimated without reading a weight, and is near what is measured."""

from pathlib import Path

import pytest
from mlx.utils import tree_flatten
from tiny import PEOPLE, write_rows

from farense_qlora.config import HOME, Config
from farense_qlora.data import load as load_module
from farense_qlora.data.load import load_data
from farense_qlora.errors import UserError
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import load_base
from farense_qlora.training import cost as module
from farense_qlora.training import run as run_module
from farense_qlora.training.cost import MISTRAL_7B, estimate, memory_warning, shape_of
from farense_qlora.training.events import Started, Stepped, of
from farense_qlora.training.fit import trial
from farense_qlora.training.loop import Trainer
from farense_qlora.training.start import start


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(module, "MEASURED", tmp_path / "fit.json")
    monkeypatch.setattr(load_module, "CACHE", tmp_path / "cache")
    return Config.of("mini")


@pytest.mark.parametrize(
    "changes", [{}, {"rank": 3}, {"num_layers": 2}, {"target_modules": ("q_proj", "down_proj")}]
)
def test_the_adapter_is_counted_exactly(config: Config, tiny_model: Path, changes: dict[str, object]) -> None:
    for model in ("mini", str(tiny_model)):
        asked = config.changed(model=model, **changes)
        base = load_base(Config(model=model))
        attach(base.model, asked)
        real = sum(array.size for _, array in tree_flatten(base.model.trainable_parameters()))
        shape = shape_of(model)
        assert shape and shape.trainable(asked) == real
        assert shape.parameters == pytest.approx(base.parameters, rel=0.01)


def test_updates_follow_the_rows_the_batch_and_the_epochs(config: Config) -> None:
    rows = len((HOME / config.train_data).read_text(encoding="utf-8").splitlines())
    cost = estimate(config.changed(batch_size=8, grad_accumulation_steps=2, epochs=2.0), on_cpu=True)
    assert (cost.rows, cost.updates_per_epoch, cost.updates) == (rows, -(-rows // 16), 2 * -(-rows // 16))
    assert estimate(config.changed(max_steps=7), on_cpu=True).updates == 7


def test_once_the_rows_have_been_tokenized_the_updates_are_those_of_the_training(
    config: Config, tmp_path: Path, tiny_model: Path
) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl", {f"Quem foi {'o tal ' * (i % 9)}{i}?": "Um." for i in range(70)}
    )
    asked = config.changed(model=str(tiny_model), train_data=str(rows), epochs=3.0)
    assert not estimate(asked, on_cpu=True).exact
    base = load_base(asked)
    load_data(asked, base)
    for one in (asked, asked.changed(batch_size=5), asked.changed(packing=False), asked.changed(max_steps=2)):
        cost = estimate(one, on_cpu=True)
        trainer = Trainer(one, load_base(one), load_data(one, base), tmp_path / "run")
        assert cost.exact and cost.updates == trainer.total_steps
        assert cost.updates_per_epoch == trainer.sampler.updates_per_epoch
    with open(rows, "a", encoding="utf-8") as file:
        file.write(rows.read_text(encoding="utf-8").splitlines()[0] + "\n")
    assert not estimate(asked, on_cpu=True).exact


def test_memory_is_estimated_near_what_is_measured_and_nearer_once_measured(config: Config) -> None:
    large = config.changed(batch_size=64)
    before = estimate(large, on_cpu=True)
    assert before.seconds is None and before.peak_gb
    small, measured = trial(config), trial(large).peak_gb
    assert small.peak_gb and measured
    assert 0.8 < before.peak_gb / measured < 1.25
    module.remember(config, small.peak_gb, small.seconds_per_update or 0.0)
    after = estimate(large, on_cpu=True)
    assert after.peak_gb and after.seconds and 0.67 < after.peak_gb / measured < 1.5


def test_mistral_7b_is_known_before_it_is_downloaded() -> None:
    assert shape_of("mistralai/Mistral-7B-Instruct-v0.3") == MISTRAL_7B
    assert pytest.approx(7.25e9, rel=0.01) == MISTRAL_7B.parameters
    base = Config.of("mistral-7b")
    cost = estimate(base, on_cpu=False)
    assert cost.peak_gb and 4 < cost.peak_gb < 16
    more = estimate(base.changed(batch_size=base.batch_size * 8), on_cpu=False).peak_gb
    less = estimate(base.changed(grad_checkpoint=not base.grad_checkpoint), on_cpu=False).peak_gb
    assert more and less and more > cost.peak_gb and less != cost.peak_gb
    # Near what a GPU holds at least: one packed window of 512 positions, and not one row of some fifty.
    short = estimate(base.changed(max_seq_length=128), on_cpu=False).peak_gb
    assert short and cost.peak_gb - short > 0.3


def test_more_memory_than_there_is_is_warned_of() -> None:
    cost = estimate(Config.of("mistral-7b"), on_cpu=False)
    assert cost.peak_gb and memory_warning(cost, cost.peak_gb + 1) is None
    warning = memory_warning(cost, 1.0)
    assert warning and "não cabe" in warning and "para 1,0" in warning


@pytest.mark.parametrize("what", ["folder", "table", "rows without validation"])
def test_rows_are_counted_of_any_source(config: Config, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "dados"
    for name in ("um", "dois"):
        write_rows(folder / f"{name}.jsonl", PEOPLE)
    (tmp_path / "t.csv").write_text("".join(f"pergunta {i},resposta\n" for i in range(9)), encoding="utf-8")
    source, count = {
        "folder": (folder, 2 * len(PEOPLE)),
        "table": (tmp_path / "t.csv", 8),
        "rows without validation": (folder / "um.jsonl", len(PEOPLE) - 1),
    }[what]
    validation = "" if what == "rows without validation" else str(folder / "um.jsonl")
    cost = estimate(config.changed(train_data=str(source), val_data=validation, epochs=3.0), on_cpu=True)
    each = -(-count // (config.batch_size * config.grad_accumulation_steps))
    assert (cost.rows, cost.updates) == (count, 3 * each)
    hub = estimate(config.changed(train_data="alguem/dados", val_data=""), on_cpu=True)
    assert hub.rows is None and hub.peak_gb  # known once it is here


def test_an_unknown_model_has_no_forecast_and_missing_data_are_named(config: Config, tmp_path: Path) -> None:
    cost = estimate(config.changed(model="alguem/outro-modelo"), on_cpu=True)
    assert cost.trainable is None and cost.peak_gb is None and cost.updates
    with pytest.raises(UserError, match=r"nada\.jsonl"):
        estimate(config.changed(train_data=str(tmp_path / "nada.jsonl")), on_cpu=True)


def test_training_takes_the_memory_that_was_measured_and_the_run_says_so(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "RUNS", tmp_path / "runs")
    asked = config.changed(max_steps=6, eval_every=3, probes=2)
    measured = trial(asked)
    run = start(asked, "medido").wait()
    steps, (started,) = of(run.events(), Stepped), of(run.events(), Started)
    assert measured.peak_gb == pytest.approx(max(step.peak_memory_gb for step in steps), rel=0.15)
    assert started.predicted_gb and started.predicted_gb == pytest.approx(measured.peak_gb, rel=0.25)


def test_fit_leaves_its_measurement_behind(config: Config, tmp_path: Path, tiny_model: Path) -> None:
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    asked = config.changed(model=str(tiny_model), train_data=rows, val_data=rows, batch_size=4)
    assert estimate(asked, on_cpu=True).seconds is None
    trial(asked)
    assert estimate(asked, on_cpu=True).seconds
