"""Pictures of the notebook: `python tests/browser/pictures.py`, after `make run`.

What a section shows comes from output/mistral_qlora_training.html; the panel, and a training under way, from
a JupyterLab of its own, in Chromium. The folders of this machine are not shown.
"""

import io
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from browser.lab import REPOSITORY, Lab, Notebook, until

PAGE = REPOSITORY / "output" / "mistral_qlora_training.html"
PICTURES = REPOSITORY / "docs" / "quickstart" / "imagens"
# The word in the heading of the section, and how many pixels of its outputs to show at most (whole ones).
SECTIONS = {
    "ambiente": ("Ambiente", 700),
    "dados": ("Dados", 620),
    "linhas": ("modelo lê", 640),
    "curvas": ("curvas", 640),
    "avaliacao": ("Avaliação", 1200),
    "treinos": ("Todos os treinos", 400),
}
WIDTH, COLOURS = 900, 128
UPDATES = 400  # of the training under way, when its picture is taken
# Leave of the section under the heading only its outputs, and say where they begin and end.
SHOW = """([word, most]) => {
  const cells = [...document.querySelectorAll('.jp-Cell')];
  const heading = cell => cell.querySelector('h2');
  const start = cells.findIndex(cell => heading(cell)?.textContent.includes(word));
  if (start < 0) return null;
  const next = cells.findIndex((cell, i) => i > start && heading(cell));
  cells.forEach((cell, i) => { cell.style.display = i > start && (next < 0 || i < next) ? '' : 'none'; });
  document.querySelectorAll('.jp-InputArea, .jp-InputPrompt, .jp-OutputPrompt, .jp-Cell-inputWrapper')
    .forEach(part => { part.style.display = 'none'; });
  const boxes = [...document.querySelectorAll('.jp-OutputArea-child')]
    .map(part => part.getBoundingClientRect()).filter(box => box.height);
  if (!boxes.length) return null;
  const top = Math.min(...boxes.map(box => box.top)) + scrollY;
  const bottoms = boxes.map(box => box.bottom + scrollY - top);
  const whole = bottoms.filter(bottom => bottom <= most);
  return [top, whole.length ? Math.max(...whole) : most];
}"""


# Say "projeto" and "~" for the folders of this machine.
HIDE = """folders => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode());)
    for (const [folder, name] of folders) text.data = text.data.replaceAll(folder, name);
}"""


def main() -> int:
    """Take every picture; 1 when one cannot be had."""
    if not PAGE.exists():
        print(f"falta {PAGE}: faça make run")
        return 1
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        missing = sections(browser)
        live(browser)
        browser.close()
    if missing:
        print(f"sem imagem: {', '.join(missing)}")
    return 1 if missing else 0


def sections(browser: Browser) -> list[str]:
    """Take the pictures of `SECTIONS`; returns those that cannot be had."""
    page, missing = browser.new_page(viewport={"width": WIDTH, "height": 1000}), []
    page.goto(PAGE.as_uri())
    hide(page, REPOSITORY)
    for name, (word, most) in SECTIONS.items():
        place = page.evaluate(SHOW, [word, most])
        if place is None:
            missing.append(name)
            continue
        top, height = place
        clip = {"x": 0, "y": max(0, top - 8), "width": WIDTH, "height": height + 16}
        keep(name, page.screenshot(full_page=True, clip=clip))
    return missing


def live(browser: Browser) -> None:
    """Take the pictures of the panel and of a training under way."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1400}, locale="pt-PT")
            notebook = Notebook(page, lab)
            notebook.run("ambiente", "painel", "config", "treino")
            until(lambda: lab.runs and len(lab.runs[0].events()) > UPDATES, seconds=500)
            for name in ("painel", "treino"):
                output = notebook.output(name)
                expect(output).to_be_visible()
                hide(page, lab.home)
                keep(name, output.screenshot(animations="disabled"))
        finally:
            lab.close()


def hide(page: Page, project: Path) -> None:
    """Take the folders of this machine, and the build of its kernel, out of what `page` says."""
    kernel = platform.release()
    page.evaluate(HIDE, [[str(project), "projeto"], [str(Path.home()), "~"], [kernel, kernel.split("-")[0]]])


def keep(name: str, png: bytes) -> None:
    """Store a screenshot, in few colours."""
    path = PICTURES / f"{name}.png"
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    sys.exit(main())
