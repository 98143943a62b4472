"""llama.cpp's own converter, which knows more architectures than `write_gguf`: a program of somebody else's,
that is run only because its user says where it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

from mlx_lm.tokenizer_utils import TokenizerWrapper

from ..errors import UserError

MODEL, ADAPTER = "convert_hf_to_gguf.py", "convert_lora_to_gguf.py"


def find_script(converter: Path, script: str) -> Path:
    """The `script` of the llama.cpp in the folder `converter`, which may be its `MODEL` instead; raises
    `UserError` when it is not there."""
    folder = converter.parent if converter.name == MODEL else converter
    if not (folder / script).is_file():
        raise UserError(
            f"não encontro {script} em {folder}: indique como conversor a pasta do llama.cpp, inteira, de "
            "github.com/ggml-org/llama.cpp"
        )
    return folder / script


def prepare(folder: Path, tokenizer: TokenizerWrapper) -> None:
    """Make the fused model in `folder` fit to be converted: without the names of programs, which some of the
    converter would run, and with the kind of each special token where it looks for it."""
    special = {str(token): kind.__getstate__() for token, kind in tokenizer.added_tokens_decoder.items()}
    for name, more in ("config.json", {}), ("tokenizer_config.json", {"added_tokens_decoder": special}):
        about = json.loads((folder / name).read_text(encoding="utf-8")) | more
        about.pop("auto_map", None)
        (folder / name).write_text(json.dumps(about, ensure_ascii=False, indent=2), encoding="utf-8")


def convert(converter: Path, script: str, *arguments: str | Path) -> None:
    """Run the `script` of `converter`, without the network; raises `UserError` with its last line if it
    fails."""
    done = subprocess.run(
        [sys.executable, find_script(converter, script), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        said = lines[-1] if lines else f"código {done.returncode}"
        raise UserError(
            f"o conversor do llama.cpp não converte este modelo («{said}»): escolha um llama.cpp mais "
            "recente, ou exporte como «fused»"
        )
