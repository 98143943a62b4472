"""The parts of the pages that are made from the code, and the figures, each by its template in `parts/`."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import jinja2
from pages import GENERATED, ROOT, pages

from farense_qlora import templates

PARTS = Path(__file__).with_name("parts")
FIGURES = {name: ROOT / "docs" / "guides" / "imagens" / name for name in ("memoria.svg", "quantizacao.svg")}


def part(name: str) -> str:
    """The part `name` as the code gives it now; its template imports what it tells of by `module`."""
    loader = jinja2.FileSystemLoader(PARTS)
    environment = templates.ENVIRONMENT.overlay(loader=loader, extensions=["jinja2.ext.do"])
    code = lambda names: ", ".join(f"`{name}`" for name in names) or "—"
    environment.filters = environment.filters | {"code": code}
    with patch("farense_qlora.training.cost._measured", dict):  # not what `fit` found on this machine
        return environment.get_template(f"{name}.j2").render(module=import_module, zip=zip).strip()


def check_generated() -> Iterator[str]:
    """Parts and figures that are not what the code gives now."""
    for page, text in pages().items():
        for name, body in GENERATED.findall(text):
            if body.strip() != part(name):
                yield f"{page}: «{name}» mudou: faça make docs-update"
    for name, path in FIGURES.items():
        if not path.exists() or path.read_text(encoding="utf-8").strip() != part(name):
            yield f"{name}: a figura mudou: faça make docs-update"


def write() -> None:
    """Put what the code gives now into the pages, and draw the figures."""
    for page, text in pages().items():
        made = lambda found: f"<!-- gerado: {found[1]} -->\n{part(found[1])}\n<!-- fim -->"
        (ROOT / page).write_text(GENERATED.sub(made, text), encoding="utf-8")
    for name, path in FIGURES.items():
        path.write_text(f"{part(name)}\n", encoding="utf-8")
