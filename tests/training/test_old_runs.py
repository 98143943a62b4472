"""A run that an older version wrote is read, and goes on from where it stood.

`fixtures/run-1` was written by the version of November 2026 (commit 65ddf17) and stopped after 5 of its 8
updates; `run-1-whole.jsonl` holds the events of the same run without the stop.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from farense_qlora.config import Config
from farense_qlora.data.load import load_data
from farense_qlora.files import verify
from farense_qlora.model.adapters import load_adapter
from farense_qlora.model.base import load_base
from farense_qlora.training.checkpoints import latest
from farense_qlora.training.events import Evaluated, Event, Finished, Saved, Started, Stepped, from_json
from farense_qlora.training.loop import train
from farense_qlora.training.run import Run

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(shutil.copytree(FIXTURES / "run-1", tmp_path / "run-1", symlinks=True))


def losses(events: list[Event]) -> list[tuple[str, int, float]]:
    return [(type(e).__name__, e.step, e.loss) for e in events if isinstance(e, Stepped | Evaluated)]


def test_its_config_and_its_events_are_read(run: Run) -> None:
    config = run.config
    assert (config.rank, config.lora_plus_ratio, config.keep_last) == (1, 4.0, 1)  # it also names keep_every
    events = run.events()
    assert [from_json(event.to_json()) for event in events] == events
    lines = (run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    for event, line in zip(events, lines, strict=True):  # what is newer than the line has its default
        assert json.loads(event.to_json()).items() >= json.loads(line).items()
    assert isinstance(events[0], Started) and run.status == "stopped"


def test_its_best_adapter_loads(run: Run, tiny_model: Path) -> None:
    assert run.best_adapter == run.folder / "best" and verify(run.best_adapter) is None
    model = load_base(Config(model=str(tiny_model))).model
    load_adapter(model, run.best_adapter)
    ours = dict(tree_flatten(model.parameters()))
    for name, array in mx.load(str(run.best_adapter / "adapters.safetensors")).items():
        assert mx.array_equal(ours[name], array)


def test_it_goes_on_from_its_checkpoint_as_it_would_have(run: Run, tiny_model: Path) -> None:
    base, config = load_base(Config(model=str(tiny_model))), run.config
    events = list(train(config, base, load_data(config, base), run.folder))
    assert isinstance(events[0], Started) and events[0].step == 5
    assert events[1] == Saved(step=5, time=events[1].time, path="checkpoints/step-000005")
    lines = (FIXTURES / "run-1-whole.jsonl").read_text(encoding="utf-8").splitlines()
    then = losses([event for event in map(from_json, lines) if event.step > 5])
    now = losses(events)
    assert [(name, step) for name, step, _ in now] == [(name, step) for name, step, _ in then]
    # The first update is computed before AdamW, which corrects its bias now and did not then, has its say.
    assert now[0][2] == pytest.approx(then[0][2], rel=1e-3)
    assert [loss for *_, loss in now] == pytest.approx([loss for *_, loss in then], rel=0.1)
    assert isinstance(events[-1], Finished) and events[-1].reason == "completed"
    assert latest(run.folder) == run.folder / "checkpoints/step-000008"
