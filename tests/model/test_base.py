"""Base models load from folders in the hub's layout, in 4 bits, and what is missing is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm import convert
from mlx_lm.utils import load_tokenizer

from farense_qlora.config import CACHE, Config
from farense_qlora.errors import UserError
from farense_qlora.exporting.formats import write_fused
from farense_qlora.model.base import load_base
from farense_qlora.model.machine import on_cpu


def test_a_16_bit_model_is_quantized_once_and_the_copy_is_used_after(tiny_model: Path) -> None:
    first = load_base(Config(model=str(tiny_model), bits=4))
    stamp = (first.path / "config.json").stat().st_mtime_ns
    second = load_base(Config(model=str(tiny_model), bits=4))
    assert json.loads((first.path / "config.json").read_text())["quantization"]["bits"] == 4
    assert second.path == first.path and (second.path / "config.json").stat().st_mtime_ns == stamp
    assert first.size_gb < load_base(Config(model=str(tiny_model), bits=16)).size_gb


def test_two_first_starts_at_once_quantize_once(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "dois")
    code = (
        "import sys\nfrom pathlib import Path\nfrom farense_qlora.model import folder\n"
        "convert, made = folder.convert, []\n"
        "folder.convert = lambda *a, **k: (made.append(1), convert(*a, **k))\n"
        "from farense_qlora.config import Config\n"
        "folder.quantized_copy(Path(sys.argv[1]), Config())\nprint(len(made))"
    )
    command = [sys.executable, "-c", code, str(model)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [int(process.communicate()[0]) for process in both]
    assert sorted(made) == [0, 1] and all(process.returncode == 0 for process in both)


def test_a_full_disk_while_quantizing_is_said_and_nothing_half_made_is_kept(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "cheio")
    code = (
        "import resource, signal, sys\nfrom farense_qlora.config import Config\n"
        "from farense_qlora.errors import DiskFullError\nfrom farense_qlora.model.base import load_base\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "try:\n    load_base(Config(model=sys.argv[1]))\n"
        "except DiskFullError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True)
    assert "o disco está cheio" in done.stdout, done.stderr
    assert load_base(Config(model=str(model))).bits == 4


def test_a_copy_that_was_cut_short_is_never_taken_for_a_whole_one(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "morto")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom farense_qlora.model import folder\n"
        "convert = folder.convert\n"
        "folder.convert = lambda *a, **k: (convert(*a, **k), os.kill(os.getpid(), signal.SIGKILL))\n"
        "from farense_qlora.config import Config\nfolder.quantized_copy(Path(sys.argv[1]), Config())"
    )
    env = {**os.environ, "XDG_CACHE_HOME": str(CACHE.parent)}
    done = subprocess.run([sys.executable, "-c", code, str(model)], env=env)
    assert done.returncode == -signal.SIGKILL
    (half,) = (CACHE / "models").glob(".morto-4bit-*.partial")
    (half / "model.safetensors").write_bytes(b"half")
    assert load_base(Config(model=str(model))).bits == 4 and not half.exists()


def test_a_model_that_comes_in_8_bits_is_said_to_be_in_8(tiny_model: Path, tmp_path: Path) -> None:
    with redirect_stdout(StringIO()):
        convert(str(tiny_model), str(tmp_path / "oito"), quantize=True, q_bits=8, q_group_size=64)
    base = load_base(Config(model=str(tmp_path / "oito"), bits=4))
    assert base.bits == 8
    assert "Bits por peso  8" in repr(base) and "<td>Bits por peso</td>" in base._repr_html_()


def test_a_model_of_mixed_widths_is_said_to_have_each(tiny_model: Path, tmp_path: Path) -> None:
    with redirect_stdout(StringIO()):
        convert(str(tiny_model), str(tmp_path / "mista"), quantize=True, quant_predicate="mixed_4_6")
    base = load_base(Config(model=str(tmp_path / "mista")))
    assert base.bits == 4 and "Bits por peso  4 e 6" in repr(base)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"bits": bits}, str(bits)) for bits in (2, 3, 5, 6, 8)]
    + [
        ({"group_size": 32}, "4"),
        ({"quantization": "mxfp4"}, "4 (mxfp4)"),
        ({"quantization": "nvfp4"}, "4 (nvfp4)"),
    ],
)
def test_a_model_is_quantized_as_the_settings_say(
    tiny_model: Path, settings: dict[str, Any], said: str
) -> None:
    from mlx_lm import load

    ours = load_base(Config(model=str(tiny_model), **settings))
    made = json.loads((ours.path / "config.json").read_text())["quantization"]
    own = {"mxfp4": 32, "nvfp4": 16}.get(made["mode"], settings.get("group_size", 64))
    assert (made["bits"], made["group_size"], made["mode"]) == (
        settings.get("bits", 4), own, settings.get("quantization", "affine")
    )  # fmt: skip
    assert ours.bits == made["bits"] and f"Bits por peso  {said}\n" in repr(ours)
    theirs, _ = load(str(ours.path))
    tokens = mx.array([[1, 40, 50, 60, 70]])
    assert mx.allclose(ours.model(tokens), theirs(tokens).astype(mx.float32), atol=1e-2)


def test_floats_of_4_bits_have_4_bits() -> None:
    with pytest.raises(UserError, match="mxfp4 tem sempre 4 bits"):
        Config.of("mini", bits=8, quantization="mxfp4")


def test_the_quantized_model_answers_as_mlx_lm_loads_it(tiny_model: Path) -> None:
    from mlx_lm import load

    ours = load_base(Config(model=str(tiny_model)))
    theirs, _ = load(str(ours.path))
    tokens = mx.array([[1, 40, 50, 60, 70]])
    assert mx.allclose(ours.model(tokens), theirs(tokens), atol=1e-4)


def test_plain_lora_refuses_a_quantized_base(tiny_model: Path) -> None:
    quantized = load_base(Config(model=str(tiny_model))).path
    with pytest.raises(UserError, match="16 bits"):
        load_base(Config(model=str(quantized), bits=16))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_named_with_what_it_lacks(
    tiny_model: Path, tmp_path: Path, missing: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(UserError) as error:
        load_base(Config(model=str(folder)))
    assert str(folder) in str(error.value) and missing.split(".")[0] in str(error.value)
    (folder / f".{missing}.icloud").touch()
    with pytest.raises(UserError, match="só na iCloud"):
        load_base(Config(model=str(folder)))


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="não encontro a pasta do modelo"):
        load_base(Config(model="./nada/aqui"))


def test_a_hub_model_without_network_says_in_one_sentence_how_to_go_on() -> None:
    with pytest.raises(UserError) as error:
        load_base(Config.of("mistral-7b", bits=16))
    message = str(error.value)
    assert "mistralai/Mistral-7B-Instruct-v0.3" in message and "pasta local" in message
    with pytest.raises(UserError, match=r"mlx-community/Mistral-7B.*-4bit"):
        load_base(Config.of("mistral-7b"))
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
        "from farense_qlora.config import Config\nfrom farense_qlora.model.base import load_base\n"
        "load_base(Config())\n"
        "assert set(widths) == {'2000'}, widths\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def changed(model: Path, folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of `model` in `folder` with what `change` does to a JSON file of it."""
    shutil.copytree(model, folder)
    content = json.loads((folder / file).read_text(encoding="utf-8"))
    change(content)
    (folder / file).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def lose_a_shard(folder: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    half = {name: weights[name] for name in sorted(weights)[: len(weights) // 2]}
    mx.save_safetensors(str(folder / "model-00001-of-00002.safetensors"), half)
    (folder / "model.safetensors").unlink()


def lose_an_indexed_shard(folder: Path) -> None:
    index = {
        "weight_map": {"lm_head.weight": "model.safetensors", "model.norm.weight": "model-b.safetensors"}
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def lose_parameters(folder: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(
        str(folder / "model.safetensors"), {name: weights[name] for name in weights if "norm" not in name}
    )


def setting(name: str, value: object = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), name: value}
        config = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return change


def writing(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text(text, encoding="utf-8") and None


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize(
    "damage, said",
    [
        (cut, r"model\.safetensors está danificado ou incompleto: descarregue"),
        (
            writing("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"),
            "danificado ou incompl",
        ),
        (lose_a_shard, r"falta model-00002-of-00002\.safetensors\): descarregue"),
        (lose_an_indexed_shard, r"falta model-b\.safetensors\): descarregue"),
        (lose_parameters, r"parâmetros em falta: 5 \(.*norm.*…\); descarregue"),
        (setting("model_type"), r"não diz de que tipo é o modelo \(model_type\)"),
        (writing("config.json", "[]"), r"não diz de que tipo é o modelo \(model_type\)"),
        (writing("config.json", "{"), "não é JSON válido"),
        (setting("model_type", "novidade"), "não conhece modelos do tipo «novidade»"),
        (setting("num_hidden_layers"), r"campos que config\.json não tem \(num_hidden_layers\)"),
        (setting("hidden_size", 48), "não consigo carregar o modelo"),
        (writing("tokenizer.json", "{}"), "não consigo carregar o"),
        (writing("tokenizer.json", "["), "não consigo carregar o"),
    ],
)
def test_a_damaged_model_is_one_line_that_says_what_is_wrong(
    tiny_model: Path, tmp_path: Path, bits: int, damage: Callable[[Path], None], said: str
) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "modelo")
    damage(folder)
    with pytest.raises(UserError, match=said) as error:
        load_base(Config(model=str(folder), bits=bits))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def add_tokens(content: dict[str, Any], *tokens: tuple[str, bool]) -> None:
    size = len(content["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] += [
        {"id": size + number, "content": text, "special": special, **flags}
        for number, (text, special) in enumerate(tokens)
    ]


def test_tokens_that_the_model_has_no_embedding_for_are_named(tiny_model: Path, tmp_path: Path) -> None:
    tokens = [("[PAD]", True), ("<golo>", False), ("falta «»", False)]
    folder = changed(
        tiny_model, tmp_path / "m", "tokenizer.json", lambda content: add_tokens(content, *tokens)
    )
    with pytest.raises(
        UserError, match=r"dos 384 .*: «\[PAD\]» \(384\), «<golo>» \(385\), «falta «»» \(386\)"
    ):
        load_base(Config(model=str(folder)))
    pad = changed(
        tiny_model,
        tmp_path / "pad",
        "tokenizer_config.json",
        lambda content: content.update(pad_token="[PAD]"),
    )
    with pytest.raises(UserError, match=r"\[PAD\].*resize_token_embeddings"):
        load_base(Config(model=str(pad), bits=16))


def test_a_token_of_pictures_in_a_model_without_eyes_is_let_be(tiny_model: Path, tmp_path: Path) -> None:
    image = ("<image_soft_token>", True)  # as in Gemma 3 1B
    folder = changed(tiny_model, tmp_path / "m", "tokenizer.json", lambda content: add_tokens(content, image))
    assert load_base(Config(model=str(folder), bits=16)).tokenizer.encode("Quem foi Paco?")


def without_template(model: Path, folder: Path) -> Path:
    return changed(model, folder, "tokenizer_config.json", lambda content: content.pop("chat_template"))


MESSAGES = [{"role": "user", "content": "Quem foi Paco?"}]
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize(
    "file, content",
    [
        ("chat_template.json", {"chat_template": TEMPLATE}),
        (
            "chat_template.json",
            {
                "chat_template": [
                    {"name": "tool_use", "template": "x"},
                    {"name": "default", "template": TEMPLATE},
                ]
            },
        ),
        ("chat_template.jinja", TEMPLATE),
    ],
    ids=["json", "named", "jinja"],
)
def test_a_template_in_a_file_of_its_own_is_read_and_kept(
    tiny_model: Path, tmp_path: Path, bits: int, file: str, content: Any
) -> None:
    folder = without_template(tiny_model, tmp_path / "modelo")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / file).write_text(text, encoding="utf-8")
    base = load_base(Config(model=str(folder), bits=bits))
    write_fused(base, None, tmp_path / "fundido")
    for tokenizer in (base.tokenizer, load_tokenizer(base.path), load_tokenizer(tmp_path / "fundido")):
        said = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
        assert said == "<s>user: Quem foi Paco?"


def test_several_templates_have_a_default_or_one_is_to_be_named(tiny_model: Path, tmp_path: Path) -> None:
    def named(*names: str) -> Callable[[dict[str, Any]], object]:
        templates = [{"name": name, "template": TEMPLATE + name} for name in names]
        return lambda content: content.update(chat_template=templates)

    both = changed(tiny_model, tmp_path / "a", "tokenizer_config.json", named("tool_use", "default"))
    for bits in (4, 16):
        said = load_base(Config(model=str(both), bits=bits)).tokenizer.apply_chat_template(
            MESSAGES, tokenize=False
        )
        assert said.endswith("default")
    none = changed(tiny_model, tmp_path / "b", "tokenizer_config.json", named("rag", "tool_use"))
    with pytest.raises(UserError, match=r"\(rag, tool_use\) e nenhum é o «default»: indique"):
        load_base(Config(model=str(none)))
    own = tmp_path / "meu.jinja"
    own.write_text(TEMPLATE, encoding="utf-8")
    base = load_base(Config(model=str(none), chat_template=str(own)))
    assert base.tokenizer.chat_template == TEMPLATE


def test_a_template_of_ones_own_takes_the_place_of_the_models(tiny_model: Path, tmp_path: Path) -> None:
    own = tmp_path / "meu.jinja"
    own.write_text(TEMPLATE, encoding="utf-8")
    base = load_base(Config(model=str(tiny_model), chat_template=str(own)))
    assert base.tokenizer.chat_template == load_tokenizer(base.path).chat_template == TEMPLATE
    assert base.tokenizer.has_chat_template
    weights = "model.safetensors"
    assert (base.path / weights).samefile(
        load_base(Config(model=str(tiny_model))).path / weights
    )  # quantized once
    with pytest.raises(UserError, match=r"chat_template: não consigo ler nada\.jinja: não existe"):
        load_base(Config(model=str(tiny_model), chat_template="nada.jinja"))


def test_a_model_without_a_template_is_loaded_without_one(tiny_model: Path, tmp_path: Path) -> None:
    assert (
        load_base(Config(model=str(without_template(tiny_model, tmp_path / "m")))).tokenizer.chat_template
        is None
    )
