"""Take an adapter home: in mlx-lm's format, with what it is, where it comes from and how to ask it."""

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..config import HOME, OUTPUT, Config
from ..errors import UserError
from ..files import sha256, whole_folder
from ..model.base import MINIATURE
from ..training.checkpoints import versions
from ..training.events import Evaluated, Event, Finished, Stepped
from ..training.run import Run
from .generate import MAX_TOKENS

METADATA = "metadata.json"
ADAPTER_FILES = ("adapters.safetensors", "adapter_config.json")


def export(run: Run, to: Path) -> Path:
    """Write the best adapter of `run` to the folder `to`, whole or not at all, in place of an older export.

    Raises `UserError` when the run has no adapter, or `to` cannot be written or holds something else.
    """
    if to.exists() and not (to / METADATA).exists() and not (to.is_dir() and not any(to.iterdir())):
        raise UserError(f"{to} já existe e não é um adaptador exportado: escolha outra pasta")
    adapter, about = run.best_adapter, metadata(run)
    with whole_folder(to) as folder:
        for name in ADAPTER_FILES:
            shutil.copyfile(adapter / name, folder / name)
        (folder / METADATA).write_text(
            json.dumps(about, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
        )
        (folder / "README.md").write_text(model_card(run.config, about, to), encoding="utf-8")
    return to


def export_folder(config: Config) -> Path:
    """Where a run of `config` is exported to when nobody says otherwise: the name follows the profile."""
    return OUTPUT / f"{config.profile}-farense-{'qlora' if config.bits == 4 else 'lora'}"


def exported_config(folder: Path) -> Config:
    """The config of the adapter that `export` wrote to `folder`; raises `UserError` if it is no export."""
    try:
        return Config.parse(json.loads((folder / METADATA).read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"a pasta {folder} não é um adaptador feito por «farense-qlora export»: {METADATA} falta ou está "
            "estragado"
        ) from None


def metadata(run: Run) -> dict[str, Any]:
    """What a program wants to know of the adapter of `run`; the same run and data give the same words."""
    config, events = run.config, run.events()
    files = {"train": config.train_data, "validation": config.val_data}
    data = {
        name: {"path": path, "sha256": sha256(HOME / path) if (HOME / path).is_file() else None}
        for name, path in files.items()
    }
    return {
        "base_model": config.model,
        "bits": config.bits,
        "run": run.name,
        "config": config.model_dump(mode="json"),
        "data": data,
        "metrics": metrics(events),
        "trained": _day(events),
        "versions": versions(),
    }


def metrics(events: Sequence[Event]) -> dict[str, Any]:
    """The figures of a run: losses in nats a supervised token, times in seconds, memory in GB."""
    steps = [event for event in events if isinstance(event, Stepped)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    finished = [event for event in events if isinstance(event, Finished)]
    best = min(evaluations, key=lambda event: event.loss, default=None)
    return {
        "steps": len(steps),
        "train_loss": steps[-1].loss if steps else None,
        "val_loss": best.loss if best else None,
        "best_step": best.step if best else None,
        "supervised_tokens": sum(event.supervised_tokens for event in steps),
        "seconds": sum(event.seconds for event in steps),
        "peak_memory_gb": max((event.peak_memory_gb for event in steps), default=None),
        "ended": finished[-1].reason if finished else None,
    }


def model_card(config: Config, about: dict[str, Any], folder: Path) -> str:
    """The README of the export: what the adapter is and the commands that ask it, in Portuguese."""
    base = str(MINIATURE) if config.model == "mini" else config.model
    loss = about["metrics"]["val_loss"]
    quantize = (
        ""
        if config.model == "mini" or config.bits == 16
        else f"""
O adaptador foi treinado sobre a base em 4 bits. Se `{base}` for um modelo de 16 bits, faça primeiro a mesma
cópia em 4 bits e dê o nome dela nos comandos acima:

    mlx_lm.convert --hf-path {base} --mlx-path base-4bits -q
"""
    )
    return f"""# {folder.name}

Adaptador LoRA de ordem {config.rank} para **{config.model}** (base em {config.bits} bits), treinado com
perguntas e respostas sobre o Sporting Clube Farense. Está no formato do mlx-lm.

| | |
|---|---|
| Treino | `{about["run"]}`, {about["metrics"]["steps"]} atualizações, {about["trained"] or "por acabar"} |
| Perda na validação | {"sem avaliação" if loss is None else f"{loss:.4f}".replace(".", ",")} |
| Dados de treino | `{config.train_data}` |

A configuração inteira, a impressão digital dos dados e as versões estão em `{METADATA}`.

## Perguntar

    farense-qlora ask --adapter {folder} "Quando foi fundado o Farense?"

ou, só com o mlx-lm:

    mlx_lm.generate --model {base} --adapter-path {folder} \\
        --max-tokens {MAX_TOKENS} --prompt "Quando foi fundado o Farense?"

Em Python:

    from mlx_lm import generate, load

    model, tokenizer = load("{base}", adapter_path="{folder}")
    messages = [{{"role": "user", "content": "Quando foi fundado o Farense?"}}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    print(generate(model, tokenizer, prompt, max_tokens={MAX_TOKENS}))
{quantize}
## Limites

Responde ao que foi ensinado. Sobre o que não estava nos dados de treino inventa com a mesma segurança:
confirme as respostas antes de as publicar.
"""


def _day(events: Sequence[Event]) -> str | None:
    return datetime.fromtimestamp(events[-1].time, UTC).strftime("%Y-%m-%d") if events else None
