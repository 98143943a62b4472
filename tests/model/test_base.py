"""Base models load from folders in the hub's layout, in 4 bits, and what is missing is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from farense_qlora.errors import UserError
from farense_qlora.model.base import load_base
from farense_qlora.model.machine import on_cpu


def test_a_16_bit_model_is_quantized_once_and_the_copy_is_used_after(tiny_model: Path) -> None:
    first = load_base(str(tiny_model), bits=4)
    stamp = (first.path / "config.json").stat().st_mtime_ns
    second = load_base(str(tiny_model), bits=4)
    assert json.loads((first.path / "config.json").read_text())["quantization"]["bits"] == 4
    assert second.path == first.path and (second.path / "config.json").stat().st_mtime_ns == stamp
    assert first.size_gb < load_base(str(tiny_model), bits=16).size_gb


def test_the_quantized_model_answers_as_mlx_lm_loads_it(tiny_model: Path) -> None:
    from mlx_lm import load

    ours = load_base(str(tiny_model))
    theirs, _ = load(str(ours.path))
    tokens = mx.array([[1, 40, 50, 60, 70]])
    assert mx.allclose(ours.model(tokens), theirs(tokens), atol=1e-4)


def test_plain_lora_refuses_a_quantized_base(tiny_model: Path) -> None:
    quantized = load_base(str(tiny_model)).path
    with pytest.raises(UserError, match="16 bits"):
        load_base(str(quantized), bits=16)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_named_with_what_it_lacks(
    tiny_model: Path, tmp_path: Path, missing: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(UserError) as error:
        load_base(str(folder))
    assert str(folder) in str(error.value) and missing.split(".")[0] in str(error.value)


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="não encontro a pasta do modelo"):
        load_base("./nada/aqui")


def test_a_hub_model_without_network_says_in_one_sentence_how_to_go_on() -> None:
    with pytest.raises(UserError) as error:
        load_base("mistralai/Mistral-7B-Instruct-v0.3")
    message = str(error.value)
    assert "mistralai/Mistral-7B-Instruct-v0.3" in message and "pasta local" in message
    assert "\n" not in message


@pytest.mark.skipif(not on_cpu(), reason="a matter of the CPU")
def test_nothing_is_evaluated_before_the_model_says_how_widely_mlx_looks_for_work() -> None:
    # MLX reads the width once, at its first evaluation: one made too early leaves a core idle.
    code = (
        "import os, mlx.core as mx\n"
        "evaluate, widths = mx.eval, []\n"
        "def watched(*arrays):\n"
        "    widths.append(os.environ.get('MLX_BFS_MAX_WIDTH'))\n"
        "    return evaluate(*arrays)\n"
        "mx.eval = watched\n"
        "from farense_qlora.model.base import load_base\n"
        "load_base('mini')\n"
        "assert set(widths) == {'2000'}, widths\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
