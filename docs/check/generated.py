"""The parts of the pages that are made from the code: tables, help, statistics, and the figures."""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pages import GENERATED, INDEX, ROOT, SKIP, blocks, documentation, named, pages, prose, text

PICTURES = ROOT / "docs" / "guides" / "imagens"
WORDS_A_MINUTE = 200
EVENTS = {
    "Started": "o treino vai começar, ou continuar se `step` > 0",
    "Stepped": "uma atualização: perda em nats por token supervisionado, tempos em segundos",
    "Evaluated": "a validação inteira; `best` diz se nunca houve perda menor",
    "Sampled": "o que o modelo responde, depois de cada avaliação, a umas perguntas fixas",
    "Saved": "um ponto de controlo ficou inteiro no disco",
    "Skipped": "sem efeito: a perda ou o gradiente não era finito; `rows` diz em que linhas",
    "RolledBack": "voltou ao último ponto de controlo, com metade da taxa de aprendizagem",
    "Spiked": "perda muito acima do habitual (`bound`)",
    "RateChanged": "a taxa de aprendizagem foi mudada a pedido",
    "Paused": "o treino espera, a pedido ou por falta de espaço no disco",
    "Resumed": "o treino continua depois da pausa",
    "Discarded": "um ponto de controlo estava estragado e usa-se o anterior",
    "Finished": "o fim: `completed`, `early_stopping` ou `stopped`",
    "Failed": "o processo desistiu; `message` é para ler",
}
FOLDERS = {
    "quickstart": "começar",
    "guides": "perceber e fazer",
    "references": "consultar",
    "troubleshooting": "resolver problemas",
    "legacy": "nomes antigos",
}


def config_table() -> str:
    """Every setting, with its flag, bounds and default."""
    from farense_qlora.config import GROUPS, Config

    lines = []
    for group, title in GROUPS.items():
        lines += [f"**{title}**", "", "| Definição | O que é | Limites | Predefinição |", "|---|---|---|---|"]
        for name, field in Config.model_fields.items():
            if (field.json_schema_extra or {}).get("group") == group:  # type: ignore[union-attr]
                lines.append(
                    f"| `{name}` | {field.description} | {_bounds(field)} | `{_word(field.default)}` |"
                )
        lines.append("")
    return "\n".join(lines[:-1])


def profiles_table() -> str:
    """What each profile sets otherwise than the defaults."""
    from farense_qlora.config import PROFILES, Config

    names = [
        name
        for name in Config.model_fields
        if name != "profile" and any(name in one for one in PROFILES.values())
    ]
    lines = [
        f"| Definição | {' | '.join(f'`{name}`' for name in PROFILES)} |",
        "|---" * (1 + len(PROFILES)) + "|",
    ]
    for name in names:
        values = [f"`{_word(getattr(Config.of(profile), name))}`" for profile in PROFILES]
        lines.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(lines)


def commands_table() -> str:
    """Every command with its flags; settings stand in the config table."""
    from farense_qlora.config import Config

    lines = ["| Comando | O que faz | Opções |", "|---|---|---|"]
    settings = {f"--{name.replace('_', '-')}" for name in Config.model_fields}
    for name, summary, parser in _commands():
        flags, any_setting = [], False
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            if set(action.option_strings) & settings and len(parser._actions) > len(settings):
                any_setting = True
            else:
                # a setting's help in the terminal has its default; here the flag is enough
                flags.append(f"`{action.option_strings[0] if action.option_strings else action.metavar}`")
        if any_setting:
            flags.append("todas as definições")
        lines.append(f"| `{name}` | {summary} | {', '.join(flags) or '—'} |")
    return "\n".join(lines)


def events_table() -> str:
    """Every event with its fields."""
    from farense_qlora.training.events import TYPES

    lines = ["| Acontecimento | O que diz | Campos, além de `step` e `time` |", "|---|---|---|"]
    for name, kind in TYPES.items():
        own = [f"`{field.name}`" for field in dataclasses.fields(kind)][2:]
        lines.append(f"| `{name}` | {EVENTS[name]} | {', '.join(own) or '—'} |")
    return "\n".join(lines)


def memory_table() -> str:
    """The memory arithmetic for Mistral-7B."""
    import explain

    lines = [
        "| GB | base congelada | parâmetros treinados | gradientes e momentos | soma |",
        "|---|---|---|---|---|",
    ]
    for name, row in explain.memory().items():
        sizes = (row.base, row.trained, row.optimizer, row.total)
        lines.append(f"| {name} | {' | '.join(_decimal(size, 2) for size in sizes)} |")
    return "\n".join(lines)


def parameters_table() -> str:
    """How many parameters an adapter on Mistral-7B has, by rank."""
    import explain
    from explain import SEVEN_B

    everything = explain.matrix_parameters(SEVEN_B) + explain.norm_parameters(SEVEN_B)
    lines = ["| `rank` | parâmetros treinados | parte dos parâmetros do modelo |", "|---|---|---|"]
    for rank in explain.RANKS:
        count = explain.adapter_parameters(SEVEN_B, rank)
        share = _decimal(100 * count / everything, 2)
        lines.append(f"| {rank} | {_decimal(count / 1e6, 1)} milhões | {share} % |")
    return "\n".join(lines)


def quantization_table() -> str:
    """Bits a weight and rounding error by bits."""
    import explain

    lines = ["| bits | bits por peso, com as escalas | erro de arredondamento |", "|---|---|---|"]
    for bits in explain.BITS:
        error = _decimal(100 * explain.rounding_error(bits), 1)
        lines.append(f"| {bits} | {_decimal(explain.bits_per_weight(bits), 1)} | {error} % |")
    return "\n".join(lines)


def bench_table() -> str:
    """The workloads that `make bench` knows."""
    from workloads import WORKLOADS

    lines = ["| Trabalho | O que é |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {work.about} |" for name, work in WORKLOADS.items()])


def statistics() -> str:
    """How large the documentation is."""
    lines = ["| Pasta | Para | Páginas | Palavras | Leitura |", "|---|---|---|---|---|"]
    total = [0, 0]
    groups: list[tuple[str, str, list[Path]]] = [(f"`{INDEX.name}`", "encontrar", [INDEX])]
    for folder, what in FOLDERS.items():
        inside = [page for page in documentation() if page.parent == ROOT / "docs" / folder]
        groups.append((f"`docs/{folder}/`", what, inside))
    for name, what, inside in groups:
        words = sum(map(_words, inside))
        total = [total[0] + len(inside), total[1] + words]
        lines.append(f"| {name} | {what} | {len(inside)} | {words} | {_minutes(words)} |")
    lines.append(f"| **soma** | | {total[0]} | {total[1]} | {_minutes(total[1])} |")
    every = [one for page in pages() for one in blocks(page)]
    run = sum(
        block.language in ("sh", "bash", "python") and not SKIP.fullmatch(block.above) for block in every
    )
    lines += [
        "",
        f"`make docs` corre {run} dos {len(every)} blocos; leitura a {WORDS_A_MINUTE} palavras por minuto.",
    ]
    return "\n".join(lines)


def page_list() -> str:
    """Every page with its title and reading time."""
    lines = ["| Página | O que é | Leitura |", "|---|---|---|"]
    for page in documentation():
        if page != INDEX:
            title = re.search(r"^# (.+)$", text(page), re.MULTILINE)[1]  # type: ignore[index]
            link = f"[{page.parent.name}/{page.stem}]({named(page)})"
            lines.append(f"| {link} | {title} | {_minutes(_words(page))} |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "config": config_table,
    "perfis": profiles_table,
    "comandos": commands_table,
    "acontecimentos": events_table,
    "memória": memory_table,
    "parâmetros": parameters_table,
    "quantização": quantization_table,
    "trabalhos": bench_table,
    "estatísticas": statistics,
    "páginas": page_list,
}


def check_generated() -> Iterator[str]:
    """Parts that are not what the code gives now, figures with other numbers, modules without a line."""
    for page in pages():
        for name, body in GENERATED.findall(text(page)):
            if name not in PARTS:
                yield f"{named(page)}: «{name}» não se gera; há {', '.join(PARTS)}"
            elif body.strip() != PARTS[name]().strip():
                yield f"{named(page)}: «{name}» mudou: faça make docs-update"
    for path, (_, numbers) in _figures().items():
        if not path.exists() or _stored(path) != numbers:
            yield f"{named(path)}: a figura mudou: faça make docs-update"
    index = text(ROOT / "docs" / "references" / "INDEX.md")
    for module in sorted((ROOT / "src" / "farense_qlora").rglob("*.py")):
        name = str(module.relative_to(ROOT / "src" / "farense_qlora"))
        if module.name != "__init__.py" and f"`{name}`" not in index:
            yield f"docs/references/INDEX.md: falta o módulo `{name}`"
    for name in re.findall(r"^\| `([\w/]+\.py)`", index, re.MULTILINE):
        if not (ROOT / "src" / "farense_qlora" / name).exists():
            yield f"docs/references/INDEX.md: já não há o módulo `{name}`"


def write() -> None:
    """Put what the code gives now into the pages, and draw the figures whose numbers changed."""
    PICTURES.mkdir(exist_ok=True)
    for path, (draw, numbers) in _figures().items():
        if not path.exists() or _stored(path) != numbers:
            draw().savefig(path, metadata={"Description": json.dumps(numbers), "Software": None})
    for page in pages():
        new = GENERATED.sub(
            lambda found: f"<!-- gerado: {found[1]} -->\n{PARTS[found[1]]()}\n<!-- fim -->", text(page)
        )
        if new != text(page):
            page.write_text(new, encoding="utf-8")


def unmeasured() -> Iterator[tuple[Path, int]]:
    """Where a figure still has to be measured."""
    for page in documentation():
        for number, line in enumerate(text(page).splitlines(), 1):
            if "<!-- por medir: " in line:
                yield page, number


def _figures() -> dict[Path, tuple[Callable[[], Any], dict[str, Any]]]:
    """Each figure, what draws it, and the numbers that are in it."""
    import explain

    sizes = {name: round(row.total, 3) for name, row in explain.memory().items()}
    return {
        PICTURES / "memoria.png": (explain.memory_bars, sizes),
        PICTURES / "quantizacao.png": (
            explain.quantized_group,
            {"erro": round(explain.rounding_error(4), 4)},
        ),
    }


def _stored(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return json.loads(image.info.get("Description", "null"))


def _commands() -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    from farense_qlora.cli.parser import build_parser

    def inside(
        parser: argparse.ArgumentParser, prefix: str
    ) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                summaries = {choice.dest: choice.help or "" for choice in action._choices_actions}
                for name, sub in action.choices.items():
                    if any(isinstance(inner, argparse._SubParsersAction) for inner in sub._actions):
                        yield from inside(sub, f"{prefix}{name} ")
                    else:
                        yield prefix + name, summaries[name], sub

    return inside(build_parser(), "")


def _bounds(field: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {_word(getattr(bound, name))}"
        for bound in field.metadata
        for name, sign in signs.items()
        if getattr(bound, name, None) is not None
    ]
    choices = re.match(r"typing\.Literal\[(.+)\]", str(field.annotation))
    if choices:
        return ", ".join(f"`{choice.strip().strip(chr(39))}`" for choice in choices[1].split(","))
    return ", ".join(found) or "—"


def _word(value: Any) -> str:
    """A value as it is typed, or in words."""
    words = {"True": "sim", "False": "não", "None": "nenhum", "()": "vazio"}
    return words.get(str(value), str(value))


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace(".", ",")


def _words(page: Path) -> int:
    return len(re.findall(r"\w+", prose(page, generated=False)))


def _minutes(words: int) -> str:
    return f"{max(1, round(words / WORDS_A_MINUTE))} min"
