"""The loop's promises: mlx-lm's numbers, weighting by tokens, an exact resume, the best adapter kept."""

import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from faults.common import numbers
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss
from mlx_lm.tuner.trainer import train as mlx_lm_train
from train_here import train_here

from farense_qlora.config import Config
from farense_qlora.data import load
from farense_qlora.data.batches import collate
from farense_qlora.data.load import GENERAL, load_data
from farense_qlora.data.tokens import Example, encode, read_rows
from farense_qlora.errors import UserError
from farense_qlora.model.adapters import attach
from farense_qlora.model.base import Base, load_base, load_tuned
from farense_qlora.training import checkpoints, loop, saving
from farense_qlora.training.event_log import replay
from farense_qlora.training.events import Evaluated, Event, Finished, Saved, Started, Stepped, sentence
from farense_qlora.training.requests import (
    LEARNING_RATE,
    SAVE,
    STOP,
    Requests,
    is_requested,
    read_requests,
    request,
)
from farense_qlora.training.step import Step, arrays, batch_loss, validation_loss


@pytest.fixture
def base(tiny_model: Path) -> Base:
    return load_base(Config(model=str(tiny_model)))


def example(length: int, prompt: int, seed: int) -> Example:
    tokens = np.random.default_rng(seed).integers(5, 300, length).astype(np.int32)
    return Example(tokens, np.arange(length) >= prompt)


def write_rows(path: Path, count: int) -> Path:
    rows = [
        {"prompt": f"Quantos golos em 19{i:02d}-{i + 1:02d}?", "completion": f"Marcou {i * 7 % 40} golos."}
        for i in range(30, 30 + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def config_for(folder: Path, **changes: object) -> Config:
    values = {
        "model": "tiny",
        "rank": 4,
        "alpha": 8.0,
        "epochs": 2.0,
        "batch_size": 3,
        "learning_rate": 5e-3,
        "max_seq_length": 64,
        "eval_every": 4,
        "save_every": 3,
        "dropout": 0.1,
        "packing": False,
        "train_data": str(write_rows(folder / "train.jsonl", 17)),
        "val_data": str(write_rows(folder / "val.jsonl", 5)),
    }
    return Config.of("mini", **{**values, **changes})


def stopped_at_look(number: int, times: int = 1) -> dict[str, Any]:
    """Options of `train` that ask `times` for a stop from the moment it looks for one the time `number`."""
    looks = itertools.count(1)

    def stops() -> int:
        return times * (next(looks) >= number)

    return {"stops": stops}


def stopped_after(updates: int, times: int = 1) -> dict[str, Any]:
    """Options of `train` that ask `times` for a stop after so many updates."""
    done = itertools.count(1)
    asked: list[int] = []

    def requests() -> Requests:
        asked.extend([times] if next(done) == updates else [])
        return Requests()

    return {"requests": requests, "stops": lambda: sum(asked)}


def planned(events: list[Event]) -> list[dict[str, Any]]:
    """The numbers of a run without the evaluations at its stops, and so without which of all was the best."""
    return [
        {name: value for name, value in number.items() if name != "best"}
        for number in numbers(events)
        if number["event"] != "Evaluated" or number["step"] % 4 == 0
    ]


def weights_of(folder: Path) -> dict[str, mx.array]:
    return mx.load(str(folder / "adapters.safetensors"))


def test_loss_and_gradients_agree_with_mlx_lm_on_a_batch_without_padding(base: Base) -> None:
    attach(base.model, Config.of("mini", rank=4, alpha=8))
    for name, array in tree_flatten(base.model.trainable_parameters()):
        if name.endswith("lora_b"):  # zero at first: fill it, so that gradients reach A too
            base.model.load_weights([(name, mx.random.normal(array.shape) * 0.1)], strict=False)
    examples = [example(17, prompt, seed) for seed, prompt in enumerate((5, 8, 3, 11))]
    tokens = mx.array(np.stack([e.tokens for e in examples]))
    lengths = mx.array([[prompt, 17] for prompt in (5, 8, 3, 11)])

    (theirs, count), their_grads = nn.value_and_grad(base.model, default_loss)(base.model, tokens, lengths)
    batch = collate([[one] for one in examples])
    ours, grads = nn.value_and_grad(base.model, batch_loss)(base.model, *arrays(batch))

    assert batch.supervised == count.item()
    assert ours.item() / count.item() == pytest.approx(theirs.item(), abs=1e-5)
    for (name, mine), (_, other) in zip(tree_flatten(grads), tree_flatten(their_grads), strict=True):
        assert mx.abs(mine / count - other).max().item() < 1e-5, name


def test_fifty_updates_give_the_losses_of_mlx_lms_trainer(base: Base, tmp_path: Path) -> None:
    config = Config.of("mini", rank=4, lora_plus_ratio=1, max_grad_norm=0, weight_decay=0.01)
    updates = [[example(17, 5 + row, 4 * n + row) for row in range(4)] for n in range(10)] * 5
    theirs: list[float] = []

    def their_batches(**_: object) -> Iterator[tuple[mx.array, mx.array]]:
        for examples in updates:
            lengths = [[int(e.supervised.argmax()), len(e.tokens)] for e in examples]
            yield mx.array(np.stack([e.tokens for e in examples])), mx.array(lengths)

    class Watch(TrainingCallback):
        def on_train_loss_report(self, info: dict[str, float]) -> None:
            theirs.append(info["train_loss"])

    arguments = TrainingArgs(iters=50, steps_per_report=1, adapter_file=str(tmp_path / "a.safetensors"))
    their_model = load_base(Config(model=str(base.path))).model
    attach(their_model, config)
    optimizer = optim.AdamW(1e-3, weight_decay=0.01, bias_correction=True)
    mlx_lm_train(
        their_model,
        optimizer,
        None,
        args=arguments,
        iterate_batches=their_batches,
        training_callback=Watch(),
    )

    attach(base.model, config)
    update = Step(base.model, config)
    ours = [update([[collate([[e] for e in examples])]], 1e-3)[0] for examples in updates]
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours[-1] < 0.8 * ours[0]  # there was something to agree on


def test_padding_changes_nothing(base: Base) -> None:
    attach(base.model, Config.of("mini", rank=4))
    examples = [example(9, 4, 0), example(30, 20, 1)]
    together = collate([[one] for one in examples])
    apart = [collate([[one]]) for one in examples]
    losses = sum(batch_loss(base.model, *arrays(batch)).item() for batch in apart)
    assert batch_loss(base.model, *arrays(together)).item() == pytest.approx(losses, rel=1e-5)


def test_accumulation_weights_by_tokens_and_equals_one_large_batch(base: Base, tmp_path: Path) -> None:
    config = Config.of("mini", rank=4)
    examples = [example(9, 4, 0), example(30, 3, 1), example(12, 11, 2)]
    results = []
    for batches in (
        [[collate([[one] for one in examples])]],
        [[collate([[one]]) for one in examples[:2]], [collate([examples[2:]])]],
    ):
        fresh = load_base(Config(model=str(base.path)))
        attach(fresh.model, config)
        results.append(Step(fresh.model, config)(batches, 1e-3)[:2])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_events_come_in_order_and_the_best_adapter_is_kept(base: Base, tmp_path: Path) -> None:
    events = list(train_here(config_for(tmp_path), tmp_path / "run", base))
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert steps == list(range(1, 13)) and events[0].total_steps == 12
    assert [e.step for e in events if isinstance(e, Evaluated)] == [0, 4, 8, 12]
    assert [e.step for e in events if isinstance(e, Saved)] == [0, 3, 6, 9, 12]
    best = min((e for e in events if isinstance(e, Evaluated)), key=lambda e: e.loss)
    assert (events[-1].best_step, events[-1].best_loss) == (best.step, best.loss)
    assert best.loss < next(e for e in events if isinstance(e, Evaluated)).loss
    assert (tmp_path / "run/best/adapters.safetensors").exists()


@pytest.mark.parametrize(
    ("packing", "kind"),
    [(False, {}), (True, {}), (True, {"bits": 3}), (True, {"quantization": "nvfp4"})],
)
def test_stopping_anywhere_and_resuming_gives_the_same_bits(
    tiny_model: Path, tmp_path: Path, packing: bool, kind: dict[str, Any]
) -> None:
    base = load_base(Config(model=str(tiny_model), **kind))
    config = config_for(tmp_path, grad_accumulation_steps=2, lora_plus_ratio=4.0, packing=packing)
    whole = list(train_here(config, tmp_path / "whole", base))
    resumed: list[Event] = []
    ends = []
    # Each a fresh process's worth of state; some amid an evaluation, some asked to end at once.
    for looks, times in ((1, 2), (2, 1), (4, 2), (5, 1), (2, 2), (1, 1), (3, 1), (1000, 1)):
        fresh = load_base(Config(model=str(base.path)))
        resumed += train_here(config, tmp_path / "parts", fresh, **stopped_at_look(looks, times))
        end = resumed[-1].step
        ends.append((end, any(isinstance(e, Evaluated) and e.step == end for e in resumed)))
    assert len({*ends}) > 3
    assert (0, False) in ends
    assert planned(replay(resumed)) == planned(whole)
    last = f"checkpoints/step-{whole[-1].step:06d}"
    one, other = weights_of(tmp_path / "whole" / last), weights_of(tmp_path / "parts" / last)
    assert one.keys() == other.keys()
    assert all(mx.array_equal(one[name], other[name]) for name in one)


def test_a_stopped_run_is_saved_then_evaluated_and_its_adapter_can_be_the_best(
    base: Base, tmp_path: Path
) -> None:
    config = config_for(tmp_path, eval_every=100)
    events = list(train_here(config, tmp_path, base, **stopped_after(2)))
    kinds = [type(event).__name__ for event in events if event.step == 2]
    assert kinds == ["Stepped", "Saved", "Evaluated", "Saved", "Finished"]
    *_, evaluated, _, end = events
    assert (end.reason, end.best_step, end.best_loss) == ("stopped", 2, evaluated.loss)
    best = checkpoints.best(tmp_path)
    assert best and checkpoints.measured(best, []) == {"step": 2, "loss": evaluated.loss}
    fresh = load_tuned(Config(model=str(base.path)), best)
    again = validation_loss(fresh.model, load_data(config, fresh).validation, config)
    assert again == pytest.approx(evaluated.loss, rel=1e-6)


def test_every_evaluation_says_what_is_forgotten(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "GENERAL", GENERAL)  # all of it
    config = config_for(tmp_path, learning_rate=0.05)
    general = load_data(config, base).general
    before = validation_loss(base.model, general, config)
    events = list(train_here(config, tmp_path, base))
    said = [event.general_loss for event in events if isinstance(event, Evaluated)]
    after = validation_loss(base.model, general, config)
    assert len(general) == len(GENERAL.read_text(encoding="utf-8").splitlines()) and (
        said[0],
        said[-1],
    ) == pytest.approx((before, after), rel=1e-6)
    assert abs(after - before) > 0.01


def test_asked_twice_a_run_ends_with_what_is_saved(base: Base, tmp_path: Path) -> None:
    config = config_for(tmp_path, eval_every=100)
    events = list(train_here(config, tmp_path, base, **stopped_after(2, times=2)))
    assert [type(event).__name__ for event in events if event.step == 2] == ["Stepped", "Saved", "Finished"]
    saved = checkpoints.latest(tmp_path)
    assert saved and checkpoints.measured(saved, events) == {"step": 2, "loss": None}


def test_dying_in_the_evaluation_at_a_stop_loses_nothing(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tmp_path)
    whole = list(train_here(config, tmp_path / "whole", base))
    measure = iter([validation_loss] * 2)  # of the validation and of general texts

    def die(*arguments: Any) -> float | None:
        return next(measure)(*arguments)  # the second time there is none

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(loop, "validation_loss", die)
        events, fresh = [], load_base(Config(model=str(base.path)))
        for event in train_here(config, tmp_path / "cut", fresh, **stopped_after(2)):
            events.append(event)
    assert events[-1] == Saved(step=2, time=events[-1].time, path="checkpoints/step-000002")
    events += train_here(config, tmp_path / "cut", load_base(Config(model=str(base.path))))
    assert numbers(replay(events)) == numbers(whole)


def test_stops_do_not_change_when_early_stopping_ends_a_run(base: Base, tmp_path: Path) -> None:
    config = config_for(
        tmp_path, learning_rate=0.02, lr_schedule="constant", epochs=10.0, eval_every=3,
        early_stopping_patience=1,
    )  # fmt: skip
    whole = list(train_here(config, tmp_path / "whole", base))
    resumed: list[Event] = []
    for updates in (1, 1, 1000):
        fresh = load_base(Config(model=str(base.path)))
        resumed += train_here(config, tmp_path / "parts", fresh, **stopped_after(updates))
    losses = {e.step: e.loss for e in resumed if isinstance(e, Evaluated)}
    assert losses[2] < losses[3]  # at a stop it was better than when it was due
    assert whole[-1].reason == resumed[-1].reason == "early_stopping"
    assert whole[-1].step == resumed[-1].step


def test_a_learning_rate_that_is_accepted_later_is_that_of_what_follows(base: Base, tmp_path: Path) -> None:
    config = config_for(tmp_path, lr_schedule="constant", warmup_ratio=0.0)
    list(train_here(config, tmp_path / "run", base, **stopped_at_look(3)))
    changed = config.changed(learning_rate=1e-4)
    fresh = load_base(Config(model=str(base.path)))
    events = list(train_here(changed, tmp_path / "run", fresh, accept_changes=True))
    assert {event.learning_rate for event in events if isinstance(event, Stepped)} == {1e-4}


def test_a_learning_rate_that_was_asked_for_meanwhile_stays(base: Base, tmp_path: Path) -> None:
    config = config_for(tmp_path, lr_schedule="constant", warmup_ratio=0.0)
    asked = [Requests(), Requests(learning_rate=1e-4)]
    list(train_here(config, tmp_path / "run", base, requests=asked.pop, stops=lambda: not asked))
    events = list(train_here(config, tmp_path / "run", load_base(Config(model=str(base.path)))))
    assert {event.learning_rate for event in events if isinstance(event, Stepped)} == {1e-4}


def test_going_on_on_another_machine_is_said(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tmp_path)
    list(train_here(config, tmp_path / "run", base, **stopped_after(2)))
    monkeypatch.setattr(saving, "_machine", lambda: {"processador": "Apple M4"})
    started = next(iter(train_here(config, tmp_path / "run", load_base(Config(model=str(base.path))))))
    assert re.fullmatch("processador .+, agora Apple M4: as linhas são as mesmas, .+", started.elsewhere)
    assert sentence(started).endswith(f"; {started.elsewhere}")
    monkeypatch.undo()
    started = next(iter(train_here(config, tmp_path / "run", load_base(Config(model=str(base.path))))))
    assert not started.elsewhere


def test_going_on_from_an_adapter_begins_where_it_stood(base: Base, tmp_path: Path) -> None:
    config = config_for(tmp_path)
    best = list(train_here(config, tmp_path / "um", base))[-1].best_loss
    config = config.changed(from_adapter=str(tmp_path / "um" / "best"), seed=5, learning_rate=1e-4)
    events = []
    for event in train_here(config, tmp_path / "dois", load_base(Config(model=str(base.path)))):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 4:
            break
    first = next(event for event in events if isinstance(event, Evaluated))
    assert first.step == 0 and first.loss == pytest.approx(best, rel=1e-6)  # in another order, by the seed
    taken, begun = (weights_of(tmp_path / part) for part in ("um/best", "dois/checkpoints/step-000000"))
    assert taken.keys() == begun.keys() and all(mx.array_equal(taken[n], begun[n]) for n in taken)
    assert any(array.any().item() for name, array in begun.items() if name.endswith("lora_b"))
    started = next(event for event in events if isinstance(event, Started))
    assert str(sentence(started)).splitlines()[0] == f"partiu de {tmp_path / 'um' / 'best'}"

    shutil.rmtree(tmp_path / "um")  # one that goes on from a checkpoint has no more need of it
    events = list(train_here(config, tmp_path / "dois", load_base(Config(model=str(base.path)))))
    assert sentence(events[0]) == "continua do ponto de controlo do passo 3"
    assert isinstance(events[-1], Finished)


def test_what_is_asked_during_an_evaluation_is_not_lost(tmp_path: Path) -> None:
    request(tmp_path, SAVE)
    request(tmp_path, LEARNING_RATE, "0.5")
    assert not is_requested(tmp_path, STOP)  # all that an evaluation looks for
    request(tmp_path, STOP)
    assert is_requested(tmp_path, STOP)
    assert read_requests(tmp_path) == Requests(save=True, learning_rate=0.5)


def test_early_stopping_ends_after_evaluations_without_improvement(base: Base, tmp_path: Path) -> None:
    config = config_for(
        tmp_path,
        learning_rate=1.0,
        lr_schedule="constant",
        max_grad_norm=0.0,
        epochs=10.0,
        eval_every=1,
        early_stopping_patience=2,
    )
    events = list(train_here(config, tmp_path / "run", base))
    assert events[-1].reason == "early_stopping" and events[-1].step < 60
    assert [e.best for e in events if isinstance(e, Evaluated)][-2:] == [False, False]


def test_following_the_config_from_where_training_begins_enters_no_module_twice(
    base: Base, tmp_path: Path
) -> None:
    config, entered = config_for(tmp_path), list[str]()

    def watch(frame: Any, event: str, _: object) -> None:
        caller, module = (one.f_globals.get("__name__") for one in (frame.f_back or frame, frame))
        handed_on = event == "call" and any(value is config for value in frame.f_locals.values())
        if handed_on and caller == loop.__name__ != module and [module] != entered[-1:]:
            entered.append(module)

    for model in (base, load_base(Config(model=str(base.path)))):  # a new run, and one that goes on
        entered.clear()
        events = train_here(config, tmp_path / "run", model)
        sys.setprofile(watch)
        try:
            next(events)
        finally:
            sys.setprofile(None)
        assert len(entered) > 5 and len({*entered}) == len(entered)
        assert any(isinstance(event, Saved) for event in events)


def test_a_batch_larger_than_the_data_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size = 18 é maior do que os dados"):
        next(train_here(config_for(tmp_path, batch_size=18), tmp_path / "run", base))


def test_every_turn_of_the_assistant_is_supervised_and_nothing_else(base: Base, tmp_path: Path) -> None:
    row = {
        "messages": [
            {"role": "user", "content": "Quem treinou?"},
            {"role": "assistant", "content": "Paco Fortes."},
            {"role": "user", "content": "E em 1994-95?"},
            {"role": "assistant", "content": "O mesmo."},
        ]
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    encoded = encode(read_rows(tmp_path / "rows.jsonl"), base.tokenizer, 256)[0]
    learnt = base.tokenizer.decode(encoded.tokens[encoded.supervised].tolist())
    assert learnt == "Paco Fortes.</s>O mesmo.</s>"
    assert (encoded.tokens == base.tokenizer.bos_token_id).sum() == 1
