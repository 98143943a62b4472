"""What people read beside an export, made for that very folder: the model card and the integration guide."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..answers.generate import MAX_TOKENS
from ..config import TRAIN_DATA, Config
from ..data.rows import Row
from ..model.folder import name_for_mlx_lm
from ..templates import render
from .formats import GGUF, LORA_GGUF

QUESTION = "Quando foi fundado o Farense?"
SIMPLE = re.compile(r"[^\"'$`\\!\n]+")  # what stands between quotation marks as it is, in a shell and in JSON
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


def example(config: Config, rows: Iterable[Row]) -> str:
    """A question to show how one asks: of the club, or else the first simple one of the validation `rows`."""
    if config.train_data == TRAIN_DATA:
        return QUESTION
    asked = (row.messages[-2]["content"] for row in rows if len(row.messages) > 1)
    return next(filter(SIMPLE.fullmatch, asked), "Olá, quem é?")


def model_card(about: dict[str, Any], report: Any, folder: Path, question: str = QUESTION) -> str:
    """The README, in Portuguese and with the header that the hub reads, of the export in `folder` that is
    `about` (its metadata) and was checked as `report` says (a `Verification`)."""
    return _render("README.md.j2", about, folder, question=question, report=report)


def integration_guide(about: dict[str, Any], folder: Path, question: str = QUESTION) -> str:
    """How a program asks what is in `folder`: from Python, a shell, HTTP and Node with Express."""
    return _render("INTEGRATION_GUIDE.md.j2", about, folder, question=question)


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
        of_the_club=config.train_data == TRAIN_DATA,
        max_tokens=MAX_TOKENS,
        **values,
    )
