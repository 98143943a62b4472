"""Numbers that are not finite never reach the adapter: they are named, skipped, rolled back or given up."""

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from faults.common import Ledger
from mlx.utils import tree_map
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.files import verify
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.checkpoints import checkpoints
from farense_qlora.training.events import Event, RolledBack, Skipped, Spiked, Stepped
from farense_qlora.training.step import FEWEST, Step, Update, spike_bound


def finite(run: Path) -> bool:
    arrays = mx.load(str(checkpoints(run)[0] / "adapters.safetensors")).values()
    return all(mx.isfinite(array).all().item() for array in arrays) and verify(checkpoints(run)[0]) is None


def spoil(monkeypatch: pytest.MonkeyPatch, bad: set[int], gradient: bool) -> None:
    """Make the loss, or the gradient, of the calls `bad` of the step not a number."""
    whole, calls = Step.__call__, [0]

    def call(self: Step, batches: Any, rate: float) -> Update:
        calls[0] += 1
        if calls[0] not in bad:
            return whole(self, batches, rate)
        grads = self._loss_and_grads

        def spoilt(*arguments: Any) -> Any:
            loss, tree = grads(*arguments)
            return (loss, tree_map(lambda a: a * math.nan, tree)) if gradient else (loss * math.nan, tree)

        self._loss_and_grads = spoilt
        try:
            return whole(self, batches, rate)
        finally:
            self._loss_and_grads = grads

    monkeypatch.setattr(Step, "__call__", call)


def events_of(config: Config, run: Path, base: Base | None = None) -> list[Event]:
    return list(train_here(config, run, base))


@pytest.mark.parametrize("gradient", [False, True], ids=["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_and_its_rows_named(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, gradient: bool
) -> None:
    spoil(monkeypatch, {3, 9}, gradient)
    events = events_of(config, tmp_path)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert [event.step for event in skipped] == [3, 9]
    assert all(config.train_data in row and row.rsplit(":", 1)[1].isdigit() for row in skipped[0].rows)
    assert len(skipped[0].rows) == 4  # two micro-batches of two rows
    assert ("gradiente" if gradient else "perda") in skipped[0].cause
    assert not any(isinstance(event, RolledBack) for event in events)
    ledger("perda ou gradiente que não é número", finite(tmp_path), 1)
    assert finite(tmp_path)


def test_three_in_a_row_roll_back_and_halve_the_learning_rate(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    spoil(monkeypatch, {10, 11, 12}, gradient=True)
    events = events_of(config, tmp_path)
    back = [event for event in events if isinstance(event, RolledBack)]
    assert [(event.step, event.learning_rate) for event in back] == [(8, config.learning_rate / 2)]
    rates = [event.learning_rate for event in events if isinstance(event, Stepped) and event.step == 9]
    assert len(rates) == 2 and rates[1] == pytest.approx(rates[0] / 2)
    ledger("três seguidas: volta atrás", finite(tmp_path), 4)
    assert finite(tmp_path) and events[-1].step == config.max_steps


def test_a_learning_rate_that_never_works_ends_in_a_diagnosis(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, set(range(6, 1000)), gradient=True)
    with pytest.raises(UserError, match=r"gradiente não é finito .* reduzir 3 vezes .*rows\.jsonl:\d+"):
        events_of(config, tmp_path)
    assert finite(tmp_path)


def test_a_row_whose_numbers_overflow_is_named(config: Config, tmp_path: Path, ledger: Ledger) -> None:
    """A token that only one row has gets an embedding that is not a number."""
    base = load_base(config)
    lines = Path(config.train_data).read_text(encoding="utf-8").splitlines()
    tokens = [set(base.tokenizer.encode(line)) for line in lines]
    row, token = next(
        (i, next(iter(own)))
        for i, own in enumerate(t - set().union(*tokens[:i], *tokens[i + 1 :]) for i, t in enumerate(tokens))
        if own
    )
    embedding = base.model.model.embed_tokens
    scales = embedding.scales
    scales[token] = math.nan
    embedding.scales = scales
    skipped = []
    try:
        for event in train_here(config.changed(val_data=clean(tmp_path, lines, row)), tmp_path / "run", base):
            skipped += [event] if isinstance(event, Skipped) else []
    except UserError:
        pass  # with few rows it comes three times in a row
    assert skipped and all(f"{config.train_data}:{row + 1}" in event.rows for event in skipped)
    ledger("linha que dá NaN", finite(tmp_path / "run"), 1)


def clean(folder: Path, lines: list[str], bad: int) -> str:
    path = folder / "clean.jsonl"
    path.write_text("\n".join(line for i, line in enumerate(lines) if i != bad), encoding="utf-8")
    return str(path)


def test_a_loss_far_out_of_the_ordinary_is_reported() -> None:
    losses = [1.0 + 0.01 * (i % 7) for i in range(FEWEST)]
    assert 1.03 < spike_bound(losses) < 1.5
    assert spike_bound(losses[1:]) == math.inf


def test_a_spike_is_an_event(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = Step.__call__, [0]

    def call(self: Step, batches: Any, rate: float) -> Update:
        calls[0] += 1
        done = whole(self, batches, rate)
        return done._replace(loss=done.loss * 100) if calls[0] == 20 else done

    monkeypatch.setattr(Step, "__call__", call)
    assert [e.step for e in events_of(config, tmp_path) if isinstance(e, Spiked)] == [20]
