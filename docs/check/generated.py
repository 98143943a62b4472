"""The parts of the pages that are made from the code: tables, help, and the figures."""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from unittest.mock import patch

from pages import GENERATED, ROOT, pages, prose

from farense_qlora.cli.parser import build_parser, word
from farense_qlora.config import Config
from farense_qlora.profiles import PROFILES
from farense_qlora.text import decimal
from farense_qlora.training.events import TYPES

PICTURES = ROOT / "docs" / "guides" / "imagens"
WORDS_A_MINUTE = 200
# The pages for who works on the code; every other page of docs/ is for the user.
OF_THE_CODE = {"FALHAS", "INDEX", "MINIATURA", "MONITORING_README", "RESUMO_OTIMIZACOES"}
EVENTS = {
    "Started": "o treino vai começar, ou continuar se `step` > 0",
    "Stepped": "uma atualização: perda em nats por token supervisionado, tempos em segundos",
    "Evaluated": "a validação inteira; `best` diz se nunca houve perda menor",
    "Sampled": "o que o modelo responde, depois de cada avaliação, a umas perguntas fixas",
    "Saved": "um ponto de controlo ficou inteiro no disco",
    "Skipped": "sem efeito: a perda ou o gradiente não era finito; `rows` diz em que linhas",
    "RolledBack": "voltou ao último ponto de controlo, com metade da taxa de aprendizagem",
    "Slowed": "o treino abrandou mais de um terço por uma razão (`cause`) que o Mac conhece",
    "Spiked": "perda muito acima do habitual (`bound`)",
    "RateChanged": "a taxa de aprendizagem foi mudada a pedido",
    "Paused": "o treino espera, a pedido ou por falta de espaço no disco",
    "Resumed": "o treino continua depois da pausa",
    "Restarted": "o processo que treina recomeça por `cause`, com micro-lotes `splits` vezes a metade",
    "Discarded": "um ponto de controlo estava estragado e usa-se o anterior",
    "Finished": "o fim: `completed`, `early_stopping` ou `stopped`",
    "Merged": "o adaptador não foi treinado: soma os destes treinos, cada um vezes o seu peso",
    "Failed": "o processo desistiu; `message` é para ler",
}
# A column of the table of models, and what is tried for it.
MODEL_CHECKS = {
    "Treina": ("carrega", "perda", "grad_checkpoint"),
    "*packing*": ("packing",),
    "Responde": ("responde",),
    "mlx-lm": ("mlx",),
    "PEFT": ("peft",),
    "*fused*": ("fused", "fused-4bit"),
    "GGUF": ("gguf", "gguf-lora", "ollama"),
}
# What llama.cpp's converter does for those that we refuse: the whole model, and the adapter alone.
CONVERTED = ("gguf --converter", "gguf-lora --converter")


def _markdown(columns: str, rows: Iterator[tuple[Any, ...]], digits: int = 2) -> str:
    from farense_qlora.table import Table

    names = columns.split(" | ")
    formats = {name: lambda value: decimal(value, digits) for name in names[1:]}
    table = Table(list(rows), columns=names)
    numbers = table.select_dtypes("number").columns
    table.formats = {name: form for name, form in formats.items() if name in numbers}
    return table.to_markdown()


def config_tables() -> str:
    """Every setting, with its bounds and default."""

    def rows(names: list[str]) -> Iterator[tuple[str, ...]]:
        for name in names:
            field = Config.model_fields[name]
            yield f"`{name}`", field.description or "", _bounds(field), _code(field.default)

    return "\n\n".join(
        f"**{title}**\n\n{_markdown('Definição | O que é | Limites | Predefinição', rows(names))}"
        for title, names in Config.by_group().items()
    )


def profiles_table() -> str:
    """What each profile sets otherwise than the defaults."""
    changed = set().union(*PROFILES.values()) - {"profile"}
    settings = [Config.of(profile) for profile in PROFILES]
    rows = (
        (f"`{name}`", *(_code(getattr(config, name)) for config in settings))
        for name in Config.model_fields
        if name in changed
    )
    return _markdown(" | ".join(["Definição", *(f"`{profile}`" for profile in PROFILES)]), rows)


def commands_table() -> str:
    """Every command with its options; settings stand in the table of the config."""
    settings = {f"--{name.replace('_', '-')}" for name in Config.model_fields}
    group = next(one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction))

    def rows() -> Iterator[tuple[str, str, str]]:
        for about in group._choices_actions:
            names = [
                action.option_strings[0] if action.option_strings else str(action.metavar)
                for action in group.choices[about.dest]._actions[1:]  # the first is --help
            ]
            every = settings <= set(names)
            options = [f"`{name}`" for name in names if not (every and name in settings)]
            options += ["todas as definições"] * every
            yield f"`{about.dest}`", about.help or "", ", ".join(options) or "—"

    return _markdown("Comando | O que faz | Opções", rows())


def events_table() -> str:
    """Every event with its fields."""

    def rows() -> Iterator[tuple[str, str, str]]:
        for name, kind in TYPES.items():
            own = [f"`{field.name}`" for field in dataclasses.fields(kind)[2:]]
            yield f"`{name}`", EVENTS[name], ", ".join(own) or "—"

    return _markdown("Acontecimento | O que diz | Campos, além de `step` e `time`", rows())


def memory_table() -> str:
    """The memory arithmetic for Mistral-7B."""
    import explain

    rows = ((name, one.base, one.trained, one.optimizer, one.total) for name, one in explain.memory().items())
    return _markdown("GB | base congelada | parâmetros treinados | gradientes e momentos | soma", rows)


def parameters_table() -> str:
    """How many parameters an adapter on Mistral-7B has, by rank."""
    from explain import MISTRAL_7B, RANKS, all_parameters

    counts = {rank: MISTRAL_7B.trainable(Config(rank=rank)) for rank in RANKS}
    rows = ((str(rank), count / 1e6, 100 * count / all_parameters()) for rank, count in counts.items())
    return _markdown("`rank` | milhões de parâmetros treinados | % dos parâmetros do modelo", rows)


def quantization_table() -> str:
    """Bits a weight and rounding error by bits."""
    from explain import BITS, bits_per_weight, rounding_error

    rows = ((str(bits), bits_per_weight(bits), 100 * rounding_error(bits)) for bits in BITS)
    return _markdown("bits | bits por peso, com as escalas | erro de arredondamento, %", rows, digits=1)


def bench_table() -> str:
    """The workloads that `make bench` knows."""
    from workloads import WORKLOADS

    return _markdown("Trabalho | O que é", ((f"`{name}`", work.about) for name, work in WORKLOADS.items()))


def models_table() -> str:
    """What each family of models does, and why not, as the tests found it."""
    record = json.loads((ROOT / "tests" / "model" / "families.json").read_text(encoding="utf-8"))
    reasons: list[str] = []

    def cell(whys: set[str]) -> str:
        reasons.extend(why for why in sorted(whys) if why and why not in reasons)
        numbers = [str(reasons.index(why) + 1) for why in whys if why]
        return f"não\u00a0{', '.join(sorted(numbers))}" if numbers else "✓"

    def cells(found: dict[str, str]) -> Iterator[str]:
        for column, checks in MODEL_CHECKS.items():
            whys = {found[check] for check in checks}
            if column == "GGUF" and any(whys):
                whole, alone = (cell({found[check]}) for check in CONVERTED)
                yield whole if whole != "✓" else "conversor" + (f", `gguf-lora` {alone}" * (alone != "✓"))
            else:
                yield cell(whys)

    def rows() -> Iterator[tuple[str, ...]]:
        for family, found in record["families"].items():
            yield family, f"*{found['model_type']}*", *cells(found)

    table = _markdown(" | ".join(["Família", "Tipo", *MODEL_CHECKS]), rows())
    versions = " e ".join(f"{name} {number}" for name, number in record["versions"].items())
    said = [re.sub(r"«([^»]+)»", r"`\1`", why) for why in reasons]
    numbered = "\n".join(f"{number}. {why[0].upper()}{why[1:]}." for number, why in enumerate(said, 1))
    converter = f"o conversor do llama.cpp, com o `gguf` {record['converter']}"
    text = f"Com {versions}, e {converter}.\n\n{table}\n\n**Porque não**\n\n{numbered}"
    return text.replace("transformers", "Transformers")


def page_list() -> str:
    """Every page of docs/ with its title and reading time: those for the user, then those of the code."""

    def rows(of_the_code: bool) -> Iterator[tuple[str, str, str]]:
        for page, text in pages().items():
            if page.startswith("docs/") and (Path(page).stem in OF_THE_CODE) == of_the_code:
                words = len(re.findall(r"\w+", " ".join(line for _, line in prose(text))))
                name = page.removeprefix("docs/").removesuffix(".md")
                title = text.splitlines()[0].removeprefix("# ")
                yield f"[{title}]({page})", f"`{name}`", f"{max(1, round(words / WORDS_A_MINUTE))} min"

    return "\n\n".join(
        f"### {title}\n\n{_markdown('Página | Ficheiro, em `docs/` | Leitura', rows(of_the_code))}"
        for title, of_the_code in (("Para quem usa", False), ("Para quem mexe no código", True))
    )


def express_server() -> str:
    """The back end in Express that every export brings, for an adapter that `serve` serves."""
    from farense_qlora.answers.generate import MAX_TOKENS
    from farense_qlora.templates import render

    about = {"address": "http://127.0.0.1:8080", "kind": "mlx", "max_tokens": MAX_TOKENS}
    code = render("exporting/templates/server.mjs.j2", **about).strip()
    return f"<!-- corre nos testes, com o Express e um servidor verdadeiros -->\n```js\n{code}\n```"


def mac_table() -> str:
    """What Mistral-7B takes on a Mac, by its memory; see `panel`, which shows the same for other settings."""
    from farense_qlora.training.checkpoints import checkpoint_bytes
    from farense_qlora.training.cost import MISTRAL_7B as SHAPE
    from farense_qlora.training.cost import estimate, weights_gb
    from farense_qlora.training.doctor import recommended_profile

    def rows() -> Iterator[tuple[Any, ...]]:
        for memory in (8, 16, 24, 32):
            profile = recommended_profile(memory, on_cpu=False)
            config = Config.of(profile)
            kept = (config.keep_last + 2) * checkpoint_bytes(SHAPE.trainable(config)) / 1e9
            cost, download = estimate(config, on_cpu=False), weights_gb(SHAPE, config.bits)
            yield (
                f"{memory} GB", f"`{profile}`", download, download + kept, cost.peak_gb, f"{cost.updates}"
            )  # fmt: skip

    with patch("farense_qlora.training.cost._measured", dict):  # not what `fit` found on this machine
        return _markdown(
            "Mac com | Perfil | descarga, GB | disco, GB | pico de memória, GB | atualizações", rows(), 1
        )


PARTS: dict[str, Callable[[], str]] = {
    "config": config_tables,
    "perfis": profiles_table,
    "comandos": commands_table,
    "acontecimentos": events_table,
    "memória": memory_table,
    "parâmetros": parameters_table,
    "quantização": quantization_table,
    "trabalhos": bench_table,
    "modelos": models_table,
    "páginas": page_list,
    "express": express_server,
    "mac": mac_table,
}


def check_generated() -> Iterator[str]:
    """Parts that are not what the code gives now, and figures with other numbers."""
    for page, text in pages().items():
        for name, body in GENERATED.findall(text):
            if name not in PARTS:
                yield f"{page}: «{name}» não se gera; há {', '.join(PARTS)}"
            elif body.strip() != PARTS[name]():
                yield f"{page}: «{name}» mudou: faça make docs-update"
    yield from (f"{name}.png: a figura mudou: faça make docs-update" for name, _, _ in _old_figures())


def write() -> None:
    """Put what the code gives now into the pages, and draw the figures whose numbers changed."""
    for name, draw, numbers in _old_figures():
        draw().savefig(PICTURES / f"{name}.png", metadata={"Description": numbers, "Software": None})
    for page, text in pages().items():
        made = lambda found: f"<!-- gerado: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- fim -->"
        (ROOT / page).write_text(GENERATED.sub(made, text), encoding="utf-8")


def _old_figures() -> Iterator[tuple[str, Callable[[], Any], str]]:
    """The figures that do not have the numbers of now: each one's name, what draws it, and the numbers."""
    import explain
    from PIL import Image

    sizes = {name: round(row.total, 3) for name, row in explain.memory().items()}
    error = {"erro": round(explain.rounding_error(4), 4)}
    for name, draw, numbers in (
        ("memoria", explain.memory_bars, sizes),
        ("quantizacao", explain.quantized_group, error),
    ):
        path, said = PICTURES / f"{name}.png", json.dumps(numbers)
        if not path.exists() or Image.open(path).info.get("Description") != said:
            yield name, draw, said


def _bounds(field: Any) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [(name, getattr(one, name, None)) for one in field.metadata for name in signs]
    return ", ".join(f"{signs[name]} {value}" for name, value in bounds if value is not None) or "—"


def _code(value: Any) -> str:
    return f"`{word(value) or 'vazio'}`"
