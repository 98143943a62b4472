"""Each format has the files and names that its reader asks for, and is kept only if that reader agrees."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map
from tiny import SENTENCES, build_tiny_model

from farense_qlora.config import Config
from farense_qlora.data import sources
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.errors import UserError
from farense_qlora.exporting import export as module
from farense_qlora.exporting import loaders, verify
from farense_qlora.exporting.export import _write, export, exports, push
from farense_qlora.exporting.formats import _pack, write_fused, write_gguf
from farense_qlora.exporting.kinds import EXACT, FORMATS
from farense_qlora.exporting.metadata import exported_config
from farense_qlora.exporting.ollama import write_modelfile
from farense_qlora.exporting.verify import QUESTIONS, Verification, divergence
from farense_qlora.model.adapters import attach, save_adapter, save_arrays
from farense_qlora.model.base import Base, load_base
from farense_qlora.model.loss import backbone_and_head
from farense_qlora.training.run import Run

TOOLS = {"peft": ("peft", "torch"), "gguf": ("llama_cpp", "gguf"), "ollama": ("llama_cpp", "gguf")}


def needs(kind: str) -> pytest.MarkDecorator:
    """Skip where the reader of `kind` is not installed."""
    missing = [name for name in TOOLS[kind] if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: make consumers")


@pytest.fixture
def run(
    trained: Path, home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setattr(sources, "HOME", home)
    monkeypatch.setattr(module, "OUTPUT", tmp_path_factory.mktemp("output"))
    return Run(trained)


def report(folder: Path) -> dict[str, object]:
    return json.loads((folder / "verification.json").read_text(encoding="utf-8"))


def test_the_mlx_adapter_is_the_trained_one(run: Run, tmp_path: Path) -> None:
    found = report(export(run, tmp_path / "mlx"))
    assert (found["format"], found["questions"], found["passed"]) == ("mlx", 8, True)
    assert found["kl"] < 1e-6 < found["kl_base"]
    assert found["top1"] == found["same_answers"] == found["same_prompts"] == 1.0


@needs("peft")
def test_peft_reads_its_names_transposes_and_scale(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "peft", "peft")
    ours = mx.load(str(run.best_adapter / "adapters.safetensors"))
    theirs = mx.load(str(folder / "adapter_model.safetensors"))
    assert len(theirs) == len(ours)
    for matrix in ("A", "B"):
        name = f"model.layers.1.self_attn.q_proj.lora_{matrix.lower()}"
        other = f"base_model.model.model.layers.1.self_attn.q_proj.lora_{matrix}.weight"
        assert np.array_equal(np.array(theirs[other]), np.array(ours[name]).T)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (run.config.rank, run.config.alpha)
    assert report(folder)["kl"] < 1e-6
    assert report(folder)["same_answers"] == 1.0


def test_fused_is_a_whole_model_in_16_bits(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "fundido", "fused")
    weights = mx.load(str(folder / "model.safetensors"))
    assert {array.dtype for array in weights.values()} == {mx.float16}
    assert not any("lora" in name or "scales" in name for name in weights)
    assert "quantization" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {"tokenizer.json", "chat_template.jinja"} <= {path.name for path in folder.iterdir()}
    assert report(folder)["same_answers"] == 1.0


@pytest.mark.parametrize(
    "kind", [{"bits": 2}, {"bits": 3}, {"bits": 8}, {"quantization": "mxfp4"}, {"quantization": "nvfp4"}]
)
def test_what_was_learnt_on_a_base_of_any_width_is_in_the_whole_model(
    tiny_model: Path, tmp_path: Path, kind: dict[str, object]
) -> None:
    base = load_base(Config(model=str(tiny_model), **kind))
    config = Config.of("mini", model=str(tiny_model), rank=4, **kind)
    attach(base.model, config)
    mx.random.seed(0)
    loud = tree_map(lambda array: 0.1 * mx.random.normal(array.shape), base.model.trainable_parameters())
    base.model.update(loud)
    for folder in ("adaptador", "fundido"):
        (tmp_path / folder).mkdir()
    save_adapter(base.model, config, base.name, tmp_path / "adaptador")
    tokens = mx.array([[1, 40, 50, 60, 70]])
    expected = base.model(tokens)
    assert mx.abs(expected - load_base(config).model(tokens)).max() > 0.1
    write_fused(base, tmp_path / "adaptador", tmp_path / "fundido")
    whole = load_base(config.changed(model=str(tmp_path / "fundido"), bits=16, quantization="affine"))
    assert whole.bits == 16 and mx.allclose(whole.model(tokens), expected, atol=2e-2)


def test_an_adapter_that_requantization_erases_is_refused(run: Run, tmp_path: Path) -> None:
    whisper = tmp_path / "sussurro"
    shutil.copytree(run.folder, whisper)
    file = whisper / "best" / "adapters.safetensors"
    faint = {name: array * 0.01 for name, array in mx.load(str(file)).items()}
    mx.eval(faint)
    save_arrays(file, faint)
    with pytest.raises(UserError, match="o treino não sobreviveu"):
        export(Run(whisper), tmp_path / "apagado", "fused-4bit")
    assert [path.name for path in tmp_path.iterdir()] == ["sussurro"]


@needs("gguf")
@pytest.mark.parametrize("format, matrices", [("gguf", "F16"), ("gguf-bf16", "BF16"), ("gguf-q8_0", "Q8_0")])
def test_llama_cpp_answers_from_the_gguf(run: Run, tmp_path: Path, format: str, matrices: str) -> None:
    from gguf import GGUFReader

    folder = export(run, tmp_path / "gguf", format)
    reader = GGUFReader(folder / "model.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == matrices
    assert kinds["output_norm.weight"] == "F32"
    types = reader.get_field("tokenizer.ggml.token_type")
    assert types.types[1].name == "INT32"
    assert reader.get_field("tokenizer.ggml.add_bos_token").contents() is True
    found = report(folder)
    assert found["same_prompts"] == 1.0  # no second <s>, no other cut
    assert found["same_answers"] == 1.0


@needs("gguf")
def test_llama_cpp_packs_what_it_packs_best_and_what_that_costs_the_base_stands_beside(
    run: Run, tmp_path: Path
) -> None:
    folder = export(run, tmp_path / "gguf", "gguf-q6_k", questions=2)
    assert [path.name for path in folder.glob("*.gguf*")] == [
        "model.gguf"
    ]  # nothing of the way there is left
    found = report(folder)
    assert 1e-6 < found["kl"] < 0.1 * found["kl_base"]
    assert 1e-6 < found["kl_packed"] < found["kl_base"]
    assert "só por si" in (folder / "README.md").read_text(encoding="utf-8")


@needs("gguf")
def test_what_llama_cpp_cannot_pack_is_said_in_its_words(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f16.gguf").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"não conseguiu escrever model\.gguf em q6_k: .*f16\.gguf"):
        _pack(tmp_path / "f16.gguf", "q6_k", tmp_path / "model.gguf")


@needs("gguf")
def test_llama_cpp_puts_the_adapter_on_its_base(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "lora", "gguf-lora")
    assert not (folder / "model.gguf").exists()
    found = report(folder)
    assert found["kl"] < 1e-3 * found["kl_base"]
    assert found["top1"] == found["same_answers"] == 1.0


@needs("gguf")
@pytest.mark.parametrize("layout", ["first", "legacy"])
def test_llama_cpp_cuts_text_as_mistrals_own_tokenizer_does(tmp_path: Path, layout: str) -> None:
    from llama_cpp import Llama

    base = load_base(Config(model=str(build_tiny_model(tmp_path / "pieces", pieces=layout)), bits=16))
    file = tmp_path / "model.gguf"
    write_gguf(base, None, "pieces", "f16", file)
    theirs = Llama(str(file), vocab_only=True, verbose=False)
    for question in (*SENTENCES, "Ganhou 3€?\n  Ó  Zé, já!", "", "[INST]eiro ▁ 🦁"):
        turns = [("user", question), ("assistant", "Sim."), ("user", "E depois?")]
        messages = [{"role": role, "content": text} for role, text in turns]
        ours = prompt_tokens(messages, base.tokenizer)
        prompt = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert theirs.tokenize(prompt.encode(), add_bos=False, special=True) == list(ours), question


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}


def split(expression: str) -> dict[str, object]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def cut_as(*steps: dict[str, object], model: Path, folder: Path) -> Base:
    """The base in the folder `model`, whose tokenizer cuts text in the `steps` instead."""
    shutil.copytree(model, folder)
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": list(steps)}
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    return load_base(Config(model=str(folder), bits=16))


@needs("gguf")
@pytest.mark.parametrize(
    "steps, name",
    [
        ([{**BYTES, "use_regex": True}], "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}], "smollm"),
        ([split(LLAMA_3), {**BYTES, "use_regex": False}], "llama-bpe"),
        ([split(LLAMA_3.replace("{1,3}", "")), {**BYTES, "use_regex": False}], "qwen2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_llama_cpp_cuts_text_as_the_tokenizer_file_says(
    tiny_model: Path, tmp_path: Path, steps: list[dict[str, object]], name: str
) -> None:
    from gguf import GGUFReader
    from llama_cpp import Llama

    base = cut_as(*steps, model=tiny_model, folder=tmp_path / "cortado")
    write_gguf(base, None, "cortado", "f16", tmp_path / "model.gguf")
    reader = GGUFReader(tmp_path / "model.gguf")
    assert reader.get_field("tokenizer.ggml.pre").contents() == name
    theirs = Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in (*SENTENCES, "Ganhou 3€?\n  Ó  Zé, já! 12345 golos... d'água"):
        ours = base.tokenizer.encode(text, add_special_tokens=False)
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ours, text


@needs("gguf")
def test_llama_cpp_is_told_of_the_groups_in_which_the_miniature_cuts_numbers(tmp_path: Path) -> None:
    from llama_cpp import Llama

    base = load_base(Config.of("mini"))
    write_gguf(base, None, "mini", "f16", tmp_path / "model.gguf")
    theirs = Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    for text in (
        *SENTENCES,
        "Em 1983-84 e em 2013/14, o 12.º lugar: 44 golos, 37 pontos, -5, e 1.234 sócios.",
    ):
        ours = base.tokenizer.encode(text, add_special_tokens=False)
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ours, text


@pytest.mark.parametrize(
    "steps",
    [
        [split(r"\p{N}{1,2}|\p{L}+"), {**BYTES, "use_regex": False}],
        [{**BYTES, "use_regex": False}],  # not cut at all
        [split(LLAMA_3)],
        [{"type": "Whitespace"}, {**BYTES, "use_regex": True}],
    ],
    ids=["another expression", "whole", "letters", "another step"],
)
@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf not installed: make consumers")
def test_a_tokenizer_that_llama_cpp_does_not_have_is_refused(
    tiny_model: Path, tmp_path: Path, steps: list[dict[str, object]]
) -> None:
    base = cut_as(*steps, model=tiny_model, folder=tmp_path / "outro")
    with pytest.raises(UserError, match="não sei escrever em GGUF o tokenizer deste modelo"):
        write_gguf(base, None, "outro", "f16", tmp_path / "model.gguf")


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf not installed: make consumers")
def test_gguf_has_the_default_of_several_templates_and_positions_as_they_are_meant(
    tiny_model: Path, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    folder = shutil.copytree(tiny_model, tmp_path / "novo")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 5e5}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("nada", encoding="utf-8")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "chat_template.jinja").write_text(default := settings["chat_template"], encoding="utf-8")
    for bits in (4, 16):
        base = load_base(Config(model=str(folder), bits=bits))
        write_gguf(base, None, "novo", "f16", tmp_path / f"{bits}.gguf")
        reader = GGUFReader(tmp_path / f"{bits}.gguf")
        assert reader.get_field("llama.rope.freq_base").contents() == 5e5
        assert reader.get_field("tokenizer.chat_template").contents() == default
        write_modelfile(base.tokenizer, 16, tmp_path)
        assert "[INST] {{ .Content }} [/INST]" in (tmp_path / "Modelfile").read_text(encoding="utf-8")
    config["rope_parameters"] |= {"rope_type": "linear", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    base = load_base(Config(model=str(folder), bits=16))
    with pytest.raises(UserError, match="um modelo com RoPE «linear»: exporte-o com --converter"):
        write_gguf(base, None, "novo", "f16", tmp_path / "x.gguf")


@pytest.mark.skipif(find_spec("gguf") is None, reason="gguf not installed: make consumers")
def test_gguf_leaves_out_tokens_without_a_row(tiny_model: Path, tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = shutil.copytree(tiny_model, tmp_path / "sem olhos")
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    image = {**described["added_tokens"][0], "id": len(described["model"]["vocab"]), "content": "<image>"}
    described["added_tokens"].append(image)
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    base = load_base(Config(model=str(folder), bits=16))
    write_gguf(base, None, "x", "f16", tmp_path / "x.gguf")
    tokens = GGUFReader(tmp_path / "x.gguf").get_field("tokenizer.ggml.tokens").contents()
    assert len(tokens) == image["id"] and "<image>" not in tokens


@needs("ollama")
def test_the_modelfile_stops_and_speaks_as_the_template(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "ollama", "ollama")
    lines = (folder / "Modelfile").read_text(encoding="utf-8").splitlines()
    assert {"FROM ./model.gguf", "PARAMETER temperature 0", 'PARAMETER stop "</s>"'} <= set(lines)
    assert any("[INST] {{ .Content }} [/INST]" in line for line in lines)
    assert "<s>" not in lines[-1].replace("</s>", "")


def test_a_reader_that_is_not_installed_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verify.TOOLS, "peft", ("nenhum-peft",))
    with pytest.raises(UserError, match=r"falta nenhum-peft: .*'farense-qlora\[export\]'"):
        export(run, tmp_path / "peft", "peft")
    assert not list(tmp_path.iterdir())


def test_several_formats_ask_the_trained_model_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(module, "measure", lambda *args: (asked.append(args[1]), verify.measure(*args))[1])
    written = list(exports(run, {name: tmp_path / name for name in ("mlx", "fused")}))
    assert written == [tmp_path / "mlx", tmp_path / "fused"] and asked == [run.best_adapter]
    alone = export(run, tmp_path / "alone", "fused")
    assert report(alone) == report(tmp_path / "fused")


def test_where_one_of_several_cannot_be_written_none_is_begun(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fused").touch()
    with pytest.raises(UserError, match="é um ficheiro"):
        list(exports(run, {name: tmp_path / name for name in ("mlx", "fused")}))
    assert [path.name for path in tmp_path.iterdir()] == ["fused"]


def test_what_is_no_format_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="não sei exportar como «onnx»: escolha um de mlx, peft, fused"):
        export(run, tmp_path / "x", "onnx")


def test_other_formats_are_not_asked_here(run: Run, tmp_path: Path) -> None:
    folder = export(run, tmp_path / "fundido", "fused")
    with pytest.raises(UserError, match="exportado como «fused»"):
        exported_config(folder)


def test_offline_nothing_is_pushed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="não consigo enviá-lo para dono/nome"):
        push(tmp_path, "dono/nome")


def test_the_logits_are_those_of_the_whole_model_though_the_head_sees_only_the_answers(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(model: nn.Module) -> tuple[nn.Module, Callable[[mx.array], mx.array]]:
        backbone, logits_of = backbone_and_head(model)
        return backbone, lambda hidden: (seen.append(hidden.size // hidden.shape[-1]), logits_of(hidden))[1]

    monkeypatch.setattr(verify, "backbone_and_head", watched)
    model = load_base(Config(model=str(tiny_model), bits=16)).model
    rows = [{"tokens": [1, 7, 9, 8], "positions": [2]}, {"tokens": [1, 5, 6], "positions": [0, 1]}]
    found = verify.logits_of(model, rows)
    whole = [np.array(model(mx.array([row["tokens"]]))[0])[row["positions"]] for row in rows]
    assert np.allclose(found, np.concatenate(whole), atol=1e-5)
    assert sum(seen) == 3


def test_the_logits_of_all_rows_are_never_in_memory_at_once(tiny_model: Path, tmp_path: Path) -> None:
    model = load_base(Config(model=str(tiny_model), bits=16)).model
    rows = [{"tokens": list(range(1, 60)), "positions": list(range(50))}] * 200
    tracemalloc.start()
    try:
        found = verify.logits_of(model, rows)
        (tmp_path / "asked").write_text(json.dumps({"rows": rows}))
        seen = found[:50]
        with patch.object(loaders, "mlx", lambda asked: ((seen.copy(), [1], "") for _ in asked["rows"])):
            loaders.main("mlx", str(tmp_path / "asked"), str(tmp_path))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.nbytes > 10e6 and most < found.nbytes / 4
    assert (tmp_path / "logits").stat().st_size == found.nbytes


def test_an_export_with_other_tokens_is_refused(tiny_model: Path) -> None:
    base = load_base(Config(model=str(tiny_model), bits=16))
    rows = [{"prompt": [1, 7], "tokens": [1, 7, 9], "positions": [1]}]
    more = np.zeros((1, base.tokenizer.vocab_size + 1), np.float32)
    reference = verify.Reference(
        tokenizer=base.tokenizer,
        rows=rows,
        prompts=[[1, 7]],
        max_tokens=1,
        logits=more,
        logits_base=more,
        answers=[""],
    )
    with pytest.raises(UserError, match="tem outro número de tokens"):
        verify.verify(reference, "fused", base.path, None)


def test_a_base_for_peft_is_no_larger_than_it_is_computed_with(run: Run, tmp_path: Path) -> None:
    base, sizes = load_base(run.config), []
    for dtype in (mx.float32, mx.bfloat16):
        to, model = tmp_path / f"{dtype}", tmp_path / f"{dtype} base"
        to.mkdir()
        _write("peft", base, run.best_adapter, "nome", to, model, dtype)
        sizes.append((model / "model.safetensors").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]


def test_divergence_is_that_of_two_known_distributions() -> None:
    p, q = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert divergence(p, p) == 0
    assert divergence(p, q + 7) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"top1": 0.9899}, "só .* dos tokens concordam"),
        ({"same_answers": 0.949}, "só 94,9 % das respostas são iguais"),
        ({"same_prompts": 0.99}, "só 99,0 % das perguntas dão os mesmos tokens"),
        ({"kl": 0.101}, "o treino não sobreviveu"),
        ({"kl": float("nan")}, "o treino não sobreviveu"),
    ],
)
def test_16_bits_must_agree_in_99_of_100_tokens_and_95_of_100_answers(
    change: dict[str, float], said: str
) -> None:
    just = Verification(
        format="x",
        consumer="y",
        questions=QUESTIONS,
        tokens=500,
        kl=0.1,
        kl_base=1.0,
        top1=0.99,
        same_answers=0.95,
        same_prompts=1.0,
        limits=EXACT,
    )
    assert not just.failures
    (failure,) = replace(just, **change).failures  # type: ignore[arg-type]
    assert re.match(said, failure)


def test_only_what_is_rounded_may_agree_less() -> None:
    rounded = {name for name, kind in FORMATS.items() if kind.limits != EXACT}
    assert rounded == {"fused-4bit"} | {name for name in FORMATS if "-q" in name}
    assert QUESTIONS == 100
