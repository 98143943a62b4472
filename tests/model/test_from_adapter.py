"""Training goes on from an adapter of ours, of mlx-lm or of PEFT, bit for bit; what does not fit is said."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tiny import PEOPLE, build_tiny_model, write_rows

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.exporting.formats import write_peft
from farense_qlora.files import write_checksums
from farense_qlora.model.adapters import attach, save_adapter, save_arrays
from farense_qlora.model.base import Base, load_base, load_tuned
from farense_qlora.model.from_adapter import start_from

Arrays = dict[str, mx.array]
CONFIG = Config.of("mini", rank=4, alpha=8.0, seed=1)


@pytest.fixture
def base(tiny_model: Path) -> Base:
    return load_base(Config(model=str(tiny_model)))


def adapted(base: Base, config: Config) -> Arrays:
    """The arrays of the LoRA layers that `base` gets, as if they had been trained."""
    attach(base.model, config)
    weights = [(n, mx.random.normal(a.shape)) for n, a in tree_flatten(base.model.trainable_parameters())]
    base.model.load_weights(weights, strict=False)
    return dict(weights)


@pytest.fixture
def ours(base: Base, tmp_path: Path) -> tuple[Path, Arrays]:
    """A folder with an adapter as we save it, made as `CONFIG` says, and what is in it."""
    weights = adapted(base, CONFIG)
    return saved(base, CONFIG, tmp_path / "nosso"), weights


def saved(base: Base, config: Config, folder: Path) -> Path:
    folder.mkdir()
    save_adapter(base.model, config, "tiny", folder)
    return folder


def peft_of(adapter: Path, folder: Path, **changes: object) -> Path:
    """The adapter in `adapter` as PEFT has it, with `changes` of its config."""
    folder.mkdir()
    write_peft(adapter, "tiny", folder)
    change(folder, **changes)
    return folder


def change(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def started(tiny_model: Path, config: Config, folder: Path) -> Arrays:
    """The arrays of the LoRA layers of a model that was started from the adapter in `folder`."""
    model = load_base(Config(model=str(tiny_model))).model
    attach(model, config)
    start_from(model, config, folder)
    return dict(tree_flatten(model.trainable_parameters()))


def refusal(tiny_model: Path, config: Config, folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        started(tiny_model, config, folder)
    return str(refused.value)


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(mx.array_equal(one[name], other[name]) for name in one)


def test_ours_comes_back_bit_for_bit(tiny_model: Path, ours: tuple[Path, Arrays]) -> None:
    folder, weights = ours
    assert same(started(tiny_model, CONFIG.changed(seed=7), folder), weights)


def test_pefts_comes_back_bit_for_bit(tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path) -> None:
    folder, weights = ours
    assert same(started(tiny_model, CONFIG, peft_of(folder, tmp_path / "peft")), weights)


def test_a_part_of_the_layers_and_modules_comes_back_too(
    base: Base, tiny_model: Path, tmp_path: Path
) -> None:
    config = CONFIG.changed(num_layers=1, target_modules=("q_proj", "v_proj"))
    weights = adapted(base, config)
    folder = saved(base, config, tmp_path / "parte")
    assert len(weights) == 4
    assert same(started(tiny_model, config, folder), weights)
    assert same(started(tiny_model, config, peft_of(folder, tmp_path / "peft")), weights)


def test_what_mlx_lms_own_trainer_left_comes_back(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("train", "valid"):
        write_rows(tmp_path / f"{name}.jsonl", PEOPLE)
    folder = tmp_path / "adapters"
    command = f"-m mlx_lm lora --train --model {tiny_model} --data {tmp_path} --adapter-path {folder}"
    settings = "--num-layers 1 --batch-size 2 --iters 2 --save-every 1 --val-batches 1"
    subprocess.run(
        [sys.executable, *command.split(), *settings.split()],
        env={**os.environ, "MLX_DISABLE_COMPILE": "1"},
        capture_output=True,
        check=True,
    )
    assert (folder / "0000001_adapters.safetensors").exists()
    flags = refusal(tiny_model, CONFIG, folder).split("use ")[-1]
    assert flags == "--rank 8 --alpha 160 --num-layers 1"
    weights = started(tiny_model, CONFIG.changed(rank=8, alpha=160, num_layers=1), folder)
    assert same(weights, mx.load(str(folder / "adapters.safetensors")))
    assert any(array.any().item() for name, array in weights.items() if name.endswith("lora_b"))


def test_16_bits_become_those_that_are_trained(
    tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path
) -> None:
    peft = peft_of(ours[0], tmp_path / "peft")
    file = peft / "adapter_model.safetensors"
    half = {name: array.astype(mx.bfloat16) for name, array in mx.load(str(file)).items()}
    mx.eval(half)
    save_arrays(file, half)
    assert {array.dtype for array in started(tiny_model, CONFIG, peft).values()} == {mx.float32}


@pytest.mark.parametrize(
    "config, said",
    [
        (CONFIG.changed(rank=8), "tem rank 4 (aqui 8): para partir dele use --rank 4"),
        (
            CONFIG.changed(rank=8, alpha=16),
            "rank 4 (aqui 8); alpha 8 (aqui 16): para partir dele use --rank 4 --alpha 8",
        ),
        (CONFIG.changed(alpha=2), "tem alpha 8 (aqui 2): para partir dele use --alpha 8"),
        (CONFIG.changed(num_layers=1), "tem num-layers 2 (aqui 1): para partir dele use --num-layers 2"),
        (
            CONFIG.changed(target_modules=("q_proj", "o_proj")),
            "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj (aqui o_proj q_proj): "
            "para partir dele use --target-modules down_proj gate_proj k_proj o_proj q_proj up_proj v_proj",
        ),
    ],
)
def test_what_differs_is_said_with_the_flags_that_make_it_fit(
    tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path, config: Config, said: str
) -> None:
    assert refusal(tiny_model, config, ours[0]).endswith(said)
    assert refusal(tiny_model, config, peft_of(ours[0], tmp_path / "peft")).endswith(said)


def test_the_flags_that_are_said_do_make_it_fit(base: Base, tiny_model: Path, tmp_path: Path) -> None:
    from farense_qlora.cli.parser import build_parser

    theirs = CONFIG.changed(rank=3, alpha=7.0, num_layers=1, target_modules=("q_proj", "v_proj"))
    weights = adapted(base, theirs)
    folder = saved(base, theirs, tmp_path / "deles")
    for adapter in (folder, peft_of(folder, tmp_path / "peft", use_rslora=True)):
        flags = refusal(tiny_model, CONFIG, adapter).split("use ")[-1].split()
        args = vars(build_parser().parse_args(["train", *flags]))
        config = CONFIG.changed(**{name: args[name] for name in Config.model_fields if name in args})
        assert same(started(tiny_model, config, adapter), weights)
    assert config.alpha == pytest.approx(7.0 * math.sqrt(3))  # PEFT's rank-stabilized scale


def test_an_adapter_of_another_base_is_refused_with_the_sizes(
    tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny

    monkeypatch.setitem(tiny.SHAPE, "intermediate_size", 192)
    wide = build_tiny_model(tmp_path / "largo")
    said = "outro modelo base: model.layers.0.mlp.down_proj tem lá 128 entradas e 64 saídas, e aqui 192 e 64"
    for config in (CONFIG, CONFIG.changed(rank=8, target_modules=("q_proj",))):
        assert refusal(wide, config, ours[0]).endswith(said)
    monkeypatch.setitem(tiny.SHAPE, "intermediate_size", 128)
    monkeypatch.setitem(tiny.SHAPE, "num_hidden_layers", 1)
    short = build_tiny_model(tmp_path / "curto")
    assert "outro modelo base: muda model.layers.1." in refusal(short, CONFIG, ours[0])


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"use_dora": True}, "do tipo DoRA"),
        ({"peft_type": "LOHA"}, "do tipo «LOHA»"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights «pissa», que muda também a base"),
        ({"alora_invocation_tokens": [3]}, "LoRA com alora_invocation_tokens"),
        ({"alpha_pattern": {"q_proj": 3}}, "não tem o mesmo rank e a mesma escala"),
        ({"lora_alpha": None}, "não diz a escala"),
    ],
)
def test_other_kinds_of_pefts_are_refused_by_name(
    tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    assert said in refusal(tiny_model, CONFIG, peft_of(ours[0], tmp_path / "peft", **changes))


@pytest.mark.parametrize("kind, said", [("dora", "do tipo DoRA"), ("full", "do tipo «full»")])
def test_other_kinds_of_mlx_lms_are_refused_by_name(
    tiny_model: Path, ours: tuple[Path, Arrays], kind: str, said: str
) -> None:
    change(ours[0], fine_tune_type=kind)
    assert said in refusal(tiny_model, CONFIG, ours[0])


def test_what_is_not_a_pair_of_lora_matrices_is_named(tiny_model: Path, ours: tuple[Path, Arrays]) -> None:
    folder, weights = ours
    file = folder / "adapters.safetensors"
    save_arrays(file, {**weights, "lm_head.weight": mx.zeros((2, 2))})
    assert "não tem só matrizes de LoRA, aos pares: veja lm_head." in refusal(tiny_model, CONFIG, folder)
    weights.pop("model.layers.0.mlp.up_proj.lora_b")
    save_arrays(file, weights)
    assert refusal(tiny_model, CONFIG, folder).endswith("veja model.layers.0.mlp.up_proj.lora_b")


def test_layers_that_are_not_the_last_are_refused(tiny_model: Path, ours: tuple[Path, Arrays]) -> None:
    folder, weights = ours
    first = {name: array for name, array in weights.items() if ".layers.0." in name}
    save_arrays(folder / "adapters.safetensors", first)
    assert "não muda os mesmos módulos em cada um dos últimos blocos" in refusal(tiny_model, CONFIG, folder)


def test_a_pickle_is_refused_by_name(tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path) -> None:
    peft = peft_of(ours[0], tmp_path / "peft")
    (peft / "adapter_model.safetensors").rename(peft / "adapter_model.bin")
    assert "adapter_model.bin é um ficheiro pickle" in refusal(tiny_model, CONFIG, peft)


def test_what_is_damaged_or_missing_is_refused(
    tiny_model: Path, ours: tuple[Path, Arrays], tmp_path: Path
) -> None:
    folder, weights = ours
    file, description = folder / "adapters.safetensors", folder / "adapter_config.json"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"outra coisa"):
        file.write_bytes(content)
        assert f"{file} está danificado" in refusal(tiny_model, CONFIG, folder)
    file.write_bytes(whole)
    write_checksums(folder)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert f"{file} está danificado" in refusal(tiny_model, CONFIG, folder)
    (folder / "checksums.json").unlink()
    save_arrays(file, {name: array * math.nan for name, array in weights.items()})
    assert f"{file} está danificado" in refusal(tiny_model, CONFIG, folder)
    file.unlink()
    assert "falta adapters.safetensors" in refusal(tiny_model, CONFIG, folder)
    description.write_text("{", encoding="utf-8")
    assert f"{description} está danificado" in refusal(tiny_model, CONFIG, folder)
    description.unlink()
    assert "falta adapter_config.json" in refusal(tiny_model, CONFIG, folder)
    assert "não encontro a pasta" in refusal(tiny_model, CONFIG, tmp_path / "nada")


def test_a_model_that_was_started_answers_as_the_adapter(tiny_model: Path, ours: tuple[Path, Arrays]) -> None:
    asked = mx.array([[1, 20, 30, 40, 50]])
    loaded = load_tuned(Config(model=str(tiny_model)), ours[0]).model
    begun = load_base(Config(model=str(tiny_model))).model
    attach(begun, CONFIG)
    start_from(begun, CONFIG, ours[0])
    assert mx.array_equal(loaded(asked), begun(asked))
    without = load_base(Config(model=str(tiny_model))).model
    assert not mx.array_equal(without(asked), begun(asked))
