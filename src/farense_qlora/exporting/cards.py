"""What people read beside an export, made for that very folder: the model card and the integration guide."""

import re
from pathlib import Path
from typing import Any

from ..answers.generate import MAX_TOKENS
from ..config import Config
from ..model.folder import name_for_mlx_lm
from ..templates import render
from .formats import GGUF, LORA_GGUF

QUESTION = "Quando foi fundado o Farense?"
WHAT = {
    "mlx": "Adaptador LoRA no formato do mlx-lm",
    "peft": "Adaptador LoRA no formato do PEFT (PyTorch)",
    "fused": "Modelo completo em 16 bits (float16), com o adaptador nos pesos, para mlx-lm e Transformers",
    "fused-4bit": "Modelo completo em 4 bits, com o adaptador nos pesos, para o mlx-lm",
    "gguf": "Modelo completo num ficheiro GGUF, com o adaptador nos pesos, para o llama.cpp",
    "gguf-lora": "Só o adaptador, em GGUF, para o llama.cpp o pôr sobre a base em GGUF",
    "ollama": "Modelo completo em GGUF e o seu Modelfile, para o Ollama",
}
LIBRARY = {"peft": "peft", "gguf": "gguf", "gguf-lora": "gguf", "ollama": "gguf"}  # the others are mlx's


def model_card(about: dict[str, Any], report: Any, folder: Path) -> str:
    """The README, in Portuguese and with the header that the hub reads, of the export in `folder` that is
    `about` (its metadata) and was checked as `report` says (a `Verification`)."""
    return _render("README.md.j2", about, folder, report=report)


def integration_guide(about: dict[str, Any], folder: Path) -> str:
    """How a program asks what is in `folder`: from Python, a shell, HTTP and Node with Express."""
    return _render("INTEGRATION_GUIDE.md.j2", about, folder)


def _render(template: str, about: dict[str, Any], folder: Path, **values: object) -> str:
    config = Config.parse(about["config"])
    kind = re.sub("-(bf16|q[4568]_.*)$", "", about["format"])  # another size, asked in the same way
    return render(
        f"exporting/templates/{template}",
        about=about,
        config=config,
        kind=kind,
        what=WHAT[kind],
        library=LIBRARY.get(kind, "mlx"),
        on_the_hub=config.model.count("/") == 1 and not config.model.startswith((".", "/", "~")),
        base=name_for_mlx_lm(config.base_model),
        folder=folder,
        gguf=folder / GGUF,
        lora=folder / LORA_GGUF,
        modelfile=folder / "Modelfile",
        name=re.sub("[^A-Za-z0-9_.-]+", "-", folder.name),  # as Ollama takes it
        question=QUESTION,
        max_tokens=MAX_TOKENS,
        **values,
    )
