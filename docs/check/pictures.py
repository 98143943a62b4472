"""Pictures of the executed notebook: `python docs/check/pictures.py`, after `make run`.

Each is the outputs of one section of output/mistral_qlora_training.html, as Chromium shows them.
"""

import io
import shutil
import sys

from pages import ROOT
from PIL import Image
from playwright.sync_api import sync_playwright

PAGE = ROOT / "output" / "mistral_qlora_training.html"
PICTURES = ROOT / "docs" / "quickstart" / "imagens"
# The word in the heading of the section, and how many pixels of its outputs to show at most (whole ones).
SECTIONS = {
    "ambiente": ("Ambiente", 400),
    "definicoes": ("Definições", 420),
    "dados": ("Dados", 620),
    "modelo": ("Modelo base", 640),
    "treino": ("Treino", 640),
    "curvas": ("curvas", 640),
    "avaliacao": ("Avaliação", 620),
}
WIDTH, COLOURS = 900, 64
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


def main() -> int:
    """Take every picture; 1 when one cannot be had."""
    if not PAGE.exists():
        print(f"falta {PAGE}: faça make run")
        return 1
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    missing = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        page.goto(PAGE.as_uri())
        PICTURES.mkdir(parents=True, exist_ok=True)
        for name, (word, most) in SECTIONS.items():
            place = page.evaluate(SHOW, [word, most])
            if place is None:
                missing.append(name)
                continue
            top, height = place
            clip = {"x": 0, "y": max(0, top - 8), "width": WIDTH, "height": height + 16}
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip)))
            path = PICTURES / f"{name}.png"
            picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)
            print(f"{path.name}: {path.stat().st_size // 1000} kB")
        browser.close()
    if missing:
        print(f"sem imagem: {', '.join(missing)}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
