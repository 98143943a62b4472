"""llama.cpp's own converter writes what ours does not, when its user says where it is, and only then."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from conftest import Command
from converting import LLAMA_CPP, needs_converter, write_pieces
from model.families import build
from real.models import smollm2
from tiny import SENTENCES

from farense_qlora.config import Config
from farense_qlora.data import sources
from farense_qlora.data.chat import prompt_tokens
from farense_qlora.errors import UserError
from farense_qlora.exporting.converter import ADAPTER, MODEL, convert, find_script, prepare
from farense_qlora.exporting.export import export, exports
from farense_qlora.exporting.formats import write_fused, write_gguf, write_gguf_lora
from farense_qlora.model.base import Base, load_base
from farense_qlora.training.run import Run

FAMILY = "Qwen 3"  # which our own writer does not know


@pytest.fixture
def qwen(tiny_model: Path, tmp_path: Path) -> Base:
    return load_base(Config(model=str(build(FAMILY, tiny_model, tmp_path / "qwen"))))


@pytest.fixture
def run(trained: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(sources, "HOME", home)
    return Run(trained)


def program(folder: Path, *lines: str, name: str = MODEL) -> Path:
    """A script in the converter's place."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_without_it_another_architecture_is_refused_with_the_way_to_have_it(
    qwen: Base, tmp_path: Path
) -> None:
    said = (
        r"um modelo do tipo «qwen3»: exporte-o com --converter e a pasta do llama\.cpp \(de github\.com/ggml-"
    )
    with pytest.raises(UserError, match=said):
        write_gguf(qwen, None, "qwen", "f16", tmp_path / "model.gguf")
    config = json.loads((qwen.path / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(UserError, match=said):
        write_gguf_lora(tmp_path, config, "qwen", tmp_path / "adapter.gguf")


def test_it_is_a_folder_or_its_own_script(tmp_path: Path) -> None:
    folder = program(tmp_path / "llama.cpp")
    assert find_script(folder, MODEL) == find_script(folder / MODEL, MODEL) == folder / MODEL
    program(folder, name=ADAPTER)
    assert find_script(folder / MODEL, ADAPTER) == folder / ADAPTER
    for other in (folder / "outro.py", tmp_path / "nada", tmp_path):
        with pytest.raises(
            UserError, match=rf"não encontro {MODEL} em {other}: indique como conversor a pasta"
        ):
            find_script(other, MODEL)


@pytest.mark.parametrize(
    "format, script", [("gguf-q4_k_m", MODEL), ("ollama", MODEL), ("gguf-lora", ADAPTER)]
)
def test_one_that_is_not_there_is_told_before_anything_is_asked(
    run: Run, tmp_path: Path, format: str, script: str
) -> None:
    pytest.importorskip("llama_cpp", reason="llama_cpp not installed: make consumers")
    other = program(tmp_path / "llama.cpp", name=MODEL if script == ADAPTER else ADAPTER)
    asked: list[object] = []
    with pytest.raises(UserError, match=f"não encontro {script}"):
        export(run, tmp_path / "x", format, converter=other, progress=lambda *told: asked.append(told))
    assert not asked


def test_the_command_line_takes_it_for_gguf_alone(run: Run, farense: Command, tmp_path: Path) -> None:
    done = farense("export", "--run", run.name, "--format", "mlx", "--converter", tmp_path)
    assert (done.returncode, "o conversor só escreve GGUF" in done.stderr) == (2, True), done.stderr


def test_one_that_fails_is_quoted_and_leaves_nothing(qwen: Base, tmp_path: Path) -> None:
    failing = program(
        tmp_path / "llama.cpp",
        "import sys",
        "print('INFO: à procura', file=sys.stderr)",
        "raise NotImplementedError('arquitetura que não conheço')",
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(
        UserError, match=r"converte este modelo \(«NotImplementedError: arquitetura que não con"
    ):
        write_gguf(qwen, None, "q", "q6_k", tmp_path / "out" / "model.gguf", failing)
    assert not [*(tmp_path / "out").iterdir()]
    silent = program(tmp_path / "llama.cpp", "import os", "os._exit(3)")
    with pytest.raises(UserError, match="«código 3»"):
        convert(silent, MODEL)


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    slow = program(
        tmp_path / "llama.cpp",
        "import os, pathlib, signal, sys, time",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))",
        "time.sleep(60)",
    )

    running: list[psutil.Process] = []

    def press() -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        running.append(psutil.Process(int((tmp_path / "pid").read_text())))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        convert(slow, MODEL, tmp_path / "pid")
    gone, _ = psutil.wait_procs(running, timeout=10)
    assert gone == running


def test_what_it_is_given_names_no_programs_and_has_the_kinds_of_the_special_tokens(tmp_path: Path) -> None:
    source = write_pieces(tmp_path / "pieces")
    model = build("Gemma 2", source, tmp_path / "gemma", auto_map={"AutoConfig": "x.Y"})
    base = load_base(Config(model=str(model), bits=4))
    (tmp_path / "fused").mkdir()
    write_fused(base, None, tmp_path / "fused")
    settings = json.loads((tmp_path / "fused" / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["auto_map"] = {"AutoTokenizer": ["x.Y", None]}
    (tmp_path / "fused" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    prepare(tmp_path / "fused", base.tokenizer)
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in (tmp_path / "fused" / name).read_text(encoding="utf-8")
    assert (tmp_path / "fused" / "tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()
    settings = json.loads((tmp_path / "fused" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["added_tokens_decoder"]["5"]["content"] == "[INST]"
    assert settings["added_tokens_decoder"]["2"]["special"] is True


@needs_converter
def test_llama_cpp_cuts_text_in_the_pieces_of_the_models_own_file(tmp_path: Path) -> None:
    from llama_cpp import Llama

    base = load_base(Config(model=str(build("Gemma 2", write_pieces(tmp_path / "p"), tmp_path / "b"))))
    file = tmp_path / "model.gguf"
    write_gguf(base, None, "pieces", "f16", file, LLAMA_CPP)
    theirs = Llama(str(file), vocab_only=True, verbose=False)
    assert theirs.metadata["general.name"] == "pieces"
    for question in (*SENTENCES, "Ganhou 3€?\n  Ó  Zé, já!", "", "[INST]eiro ▁ 🦁"):
        messages = [{"role": "user", "content": question}]
        ours = prompt_tokens(messages, base.tokenizer)
        prompt = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert theirs.tokenize(prompt.encode(), add_bos=False, special=True) == list(ours), question


@needs_converter
def test_a_tokenizer_that_it_does_not_know_is_said_in_its_words(tiny_model: Path, tmp_path: Path) -> None:
    base = load_base(Config(model=str(tiny_model)))
    with pytest.raises(UserError, match="BPE pre-tokenizer was not recognized"):
        write_gguf(base, None, "x", "f16", tmp_path / "model.gguf", LLAMA_CPP)


@needs_converter
def test_a_trained_model_of_another_architecture_goes_to_llama_cpp_and_ollama(
    farense: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "HOME", home)
    model = build(FAMILY, smollm2(), tmp_path / "qwen")
    settings = {"epochs": 40, "batch_size": 8, "learning_rate": 0.01, "eval_every": 20, "rank": 4}
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    done = farense("train", "--run", "qwen", "--model", model, *flags)
    assert done.returncode == 0, done.stderr
    run, formats = Run(home / "checkpoints_qlora" / "qwen"), ("bf16", "q8_0", "q6_k", "lora")
    folders = {name: tmp_path / "out" / name for name in ("ollama", *(f"gguf-{kind}" for kind in formats))}
    for folder in exports(run, folders, questions=2, converter=LLAMA_CPP):
        found = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
        assert found["passed"] and found["same_prompts"] == 1.0
        assert [path.suffix for path in folder.glob("*.gguf*")] == [".gguf"]
    assert "<|im_start|>" in (folders["ollama"] / "Modelfile").read_text(encoding="utf-8")
