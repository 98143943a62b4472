"""Processes that train together compute what one does, go on in other numbers, and end together."""

import json
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import pytest
from faults.common import SAVE_EVERY, STEPS
from tiny import PEOPLE, write_rows
from training.machines import Hosts, helpers_of, wait_for

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.training.events import (
    Cramped,
    Evaluated,
    Event,
    Missing,
    Paused,
    RateChanged,
    Restarted,
    Sampled,
    Saved,
    Skipped,
    Started,
    Stepped,
    of,
)  # fmt: skip
from farense_qlora.training.run import Run
from farense_qlora.training.start import start


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Config:
    rows = str(write_rows(tmp_path / "rows.jsonl", PEOPLE))
    return Config.of(
        "mini", model=str(tiny_model), train_data=rows, val_data=rows, rank=4, batch_size=2, packing=False,
        grad_accumulation_steps=3, epochs=100.0, max_steps=STEPS, eval_every=5, save_every=SAVE_EVERY,
        learning_rate=1e-3, early_stopping_patience=50, lora_plus_ratio=1.0, probes=3,
    )  # fmt: skip


def long(config: Config) -> Config:
    """A run that lasts longer than any test."""
    return config.changed(
        max_steps=None, epochs=1000.0, batch_size=1, grad_accumulation_steps=1, eval_every=8000, save_every=20
    )


def losses(events: Sequence[Event], kind: type = Stepped) -> list[float]:
    return [event.loss for event in of(events, kind)]


def weights(run: Run, step: int = STEPS) -> dict[str, mx.array]:
    return mx.load(str(run.folder / f"checkpoints/step-{step:06d}/adapters.safetensors"))


def test_over_a_hundred_updates_they_train_as_one_does(config: Config, hosts: Hosts) -> None:
    config = config.changed(packing=True, learning_rate=1e-4, max_steps=100, eval_every=25, save_every=100)
    alone = start(config, "um").wait()
    two = start(config, "dois", hosts=hosts("b")).wait()
    for kind in (Stepped, Evaluated):
        assert losses(two.events(), kind) == pytest.approx(losses(alone.events(), kind), rel=1e-5)
    theirs = weights(alone, 100)
    for name, array in weights(two, 100).items():
        assert mx.linalg.norm(array - theirs[name]) <= 1e-5 * mx.linalg.norm(array), name
    for counted in ("tokens", "supervised_tokens"):
        assert [getattr(event, counted) for event in of(two.events(), Stepped)] == [
            getattr(event, counted) for event in of(alone.events(), Stepped)
        ]
    assert [event.answers for event in of(two.events(), Sampled)] == [
        event.answers for event in of(alone.events(), Sampled)
    ]
    (began,), step = of(two.events(), Started), of(two.events(), Stepped)[-1]
    assert began.hosts == ("este", "b")
    assert len(step.host_speeds) == len(step.host_memory_gb) == 2 and max(step.host_speeds) > 0
    assert of(alone.events(), Stepped)[-1].host_speeds == () == of(alone.events(), Started)[0].hosts


def test_one_with_too_little_memory_is_named(config: Config, hosts: Hosts, python) -> None:  # type: ignore[no-untyped-def]
    short = python(
        "import psutil\n_v = psutil.virtual_memory\n"
        "psutil.virtual_memory = lambda: _v()._replace(available=1_000_000)\n"
    )
    run = start(config.changed(max_steps=2), "apertado", hosts=hosts("b", b=short)).wait()
    (warning,) = of(run.events(), Cramped)
    assert (warning.host, warning.free_gb) == ("b", 0.001) and warning.predicted_gb > 0.01


def test_gradients_may_travel_in_16_bits(config: Config, hosts: Hosts) -> None:
    config = config.changed(max_steps=8, hosts=str(hosts("b")))
    whole = start(config, "32").wait()
    half = start(config.changed(reduce_dtype="bfloat16"), "16").wait()
    assert losses(half.events()) == pytest.approx(losses(whole.events()), rel=0.02)
    assert losses(half.events())[1:] != losses(whole.events())[1:]


def test_a_run_goes_on_with_more_and_with_fewer(config: Config, hosts: Hosts) -> None:
    alone = start(config, "um").wait()
    for others in (("b",), (), ("b", "c", "d")):
        several = start(config, "varios", hosts=hosts(*others) if others else "")
        wait_for(several, Stepped, count=len(losses(several.events())) + 3)
        several.stop()
        several.wait()
    several = start(config, "varios").wait()
    assert several.status == "completed" and not (several.folder / "hosts.json").exists()
    assert [len(event.hosts) for event in of(several.events(), Started)] == [2, 0, 4, 0]
    assert losses(several.events()) == pytest.approx(losses(alone.events()), rel=1e-4)
    theirs = weights(alone)
    assert all(mx.allclose(array, theirs[name], atol=1e-4) for name, array in weights(several).items())


def test_what_is_asked_of_the_first_is_done_by_all_and_a_stop_at_any_stops_all(
    config: Config, hosts: Hosts
) -> None:
    run = start(long(config), "pausa", hosts=hosts("b"))
    wait_for(run, Stepped, count=3)
    run.pause()
    wait_for(run, Paused)
    run.set_learning_rate(5e-4)
    run.resume()
    wait_for(run, RateChanged)
    helpers_of(run)[0].send_signal(signal.SIGTERM)
    assert run.wait().status == "stopped"


def test_one_that_is_gone_is_done_without_and_taken_in_again(
    config: Config, hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = tmp_path / "desligado"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'farense_qlora.training.worker' in sys.orig_argv:\n"
        "    import farense_qlora.training.peers as peers\n    peers.SECONDS_BETWEEN_CALLS = 0.5\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = start(
        long(config),
        "sem-b",
        hosts=hosts("b", b=f"test -e {off} && exit 255"),
    )
    wait_for(run, Saved, count=2)
    off.touch()
    helpers_of(run)[0].kill()
    wait_for(run, Missing)
    wait_for(run, Stepped, count=10)
    assert of(run.events(), Missing)[-1].hosts == ("b",)
    assert of(run.events(), Started)[-1].hosts == ()
    off.unlink()
    wait_for(run, Restarted, count=2)
    wait_for(run, Started, count=3)
    run.stop()
    run.wait()
    assert of(run.events(), Restarted)[-1].cause == "«b» voltou a responder"
    assert of(run.events(), Started)[-1].hosts == ("este", "b")


def test_one_that_does_not_answer_is_named(config: Config, hosts: Hosts) -> None:
    with pytest.raises(UserError, match=r"^sem resposta de «b»: é preciso que «ssh b» entre sem senha"):
        start(config, "nada", hosts=hosts("b", "c", b="exit 255")).wait()


@pytest.fixture
def python(tmp_path: Path) -> Iterator[object]:
    """`python(code)`: a line of shell after which Python runs `code` first."""

    def changed(code: str) -> str:
        folder = tmp_path / re.sub(r"\W", "", code)[-40:]
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        return f"export PYTHONPATH={folder}:$PYTHONPATH"

    yield changed


def test_other_versions_are_named(config: Config, hosts: Hosts, python) -> None:  # type: ignore[no-untyped-def]
    older = python(
        "from importlib import metadata\n_v = metadata.version\n"
        "metadata.version = lambda name: '0.1.2' if name == 'mlx' else _v(name)\n"
    )
    with pytest.raises(UserError, match=r"^«b» não calcula com o mesmo \(mlx 0\.1\.2, e aqui \d"):
        start(config, "outro", hosts=hosts("b", b=older)).wait()


def test_a_number_that_is_not_finite_in_one_is_skipped_by_all(  # type: ignore[no-untyped-def]
    config: Config, hosts: Hosts, python
) -> None:
    spoilt = python(
        "import sys\nif 'farense_qlora.training.helper' in sys.orig_argv:\n"
        "    from farense_qlora.model import cpu\n    cpu.enable()\n"
        "    import farense_qlora.training.step as step\n    of_all, calls = step.of_all, []\n"
        "    def spoilt(grads, share, dtype):\n        calls.append(1)\n"
        "        loss = float('nan') if len(calls) == 5 else share.loss\n"
        "        return of_all(grads, share._replace(loss=loss), dtype)\n"
        "    step.of_all = spoilt\n"
    )
    run = start(config, "nan", hosts=hosts("b", b=spoilt)).wait()
    assert run.status == "completed" and len(of(run.events(), Skipped)) == 1


def test_a_bad_file_is_refused_at_once(config: Config, hosts: Hosts, tmp_path: Path) -> None:
    file = tmp_path / "mau.json"
    file.write_text(json.dumps([{"ssh": "a"}, {"ssh": "b"}]))
    with pytest.raises(UserError, match=r"não consigo ler os computadores em .+ \(não existe\): escreva-o"):
        start(config, "mau", hosts=tmp_path / "nada.json")
    with pytest.raises(UserError, match=r"não consigo ler os computadores em .+ \(tem outra forma\)"):
        start(config, "mau", hosts=file)
    assert not (tmp_path / "runs" / "mau").exists()
