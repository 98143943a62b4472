"""Build the site of the documentation: `python docs/site` writes it to output/site.

The pages are laid out in a temporary folder as they lie in the repository, so that their links hold, with a
page for each part of the package; MkDocs does the rest, and nothing in the result is loaded from elsewhere.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("mkdocs.yml")
OUTPUT = ROOT / "output" / "site"
# What the plugin `offline` has the pages load, and what does the same here.
ELSEWHERE, WORKER = "https://unpkg.com/iframe-worker/shim", Path(__file__).with_name("frame-worker.js")
WORDS = {
    '"Buscar"': '"Pesquisar"',
    "Digite para iniciar a busca": "Escreva para pesquisar",
    "Inicializando a pesquisa": "A preparar a pesquisa",
    "Copiar para área de transferência": "Copiar",
    "Copiado para área de transferência": "Copiado",
    "Compartilhar": "Partilhar",
    'aria-label="Abas"': 'aria-label="Separadores"',
}
FLAG = re.compile(r"--[\w-]+")
# Names that MkDocs would take for the first page of a folder.
RENAMED = {
    "DOCS_INDEX.md": "index.md",
    "README.md": "leia-me.md",
    "docs/references/INDEX.md": "docs/references/mapa.md",
    "docs/references/README.md": "docs/references/projeto.md",
}
PARTS = {
    "": "farense_qlora",
    "data": "Dados",
    "data/questions": "Perguntas",
    "model": "Modelo",
    "training": "Treino",
    "results": "Resultados",
    "ui": "Ecrã",
    "cli": "Linha de comandos",
}


def main() -> int:
    """Lay the pages out and build; returns what MkDocs returns."""
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder) / "docs")
        shutil.copyfile(CONFIG, Path(folder) / "mkdocs.yml")
        command = ["mkdocs", "build", "--strict", "--site-dir", str(OUTPUT)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run([sys.executable, "-m", *command], cwd=folder, env=environment, check=False)
    if done.returncode == 0:
        make_local()
        print(OUTPUT / "index.html")
    return done.returncode


def make_local() -> None:
    """Replace what the pages would load from elsewhere, and the theme's Brazilian words; keep flags whole."""
    script = OUTPUT / "assets" / "javascripts" / WORKER.name
    shutil.copyfile(WORKER, script)
    for page in OUTPUT.rglob("*.html"):
        text = page.read_text(encoding="utf-8").replace(ELSEWHERE, os.path.relpath(script, page.parent))
        for brazilian, portuguese in WORDS.items():
            text = text.replace(brazilian, portuguese)
        text = re.sub(r"<code>[^<]*</code>", lambda found: FLAG.sub(r"<span>\g<0></span>", found[0]), text)
        page.write_text(text, encoding="utf-8")


def stage(folder: Path) -> None:
    """Put the pages, what they link to, and the API's pages into `folder`."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    tracked = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    wanted = {name for name in tracked if name.endswith(".md")}
    wanted |= {name for name in tracked if name.startswith("docs/") and name.endswith((".png", ".svg"))}
    for name in sorted(wanted):
        target = folder / RENAMED.get(name, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            target.write_text(_relinked(name, tracked, folder), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / name, target)
    shutil.copyfile(CONFIG.with_name("extra.css"), folder / "extra.css")
    api = folder / "api"
    api.mkdir()
    for part, title in PARTS.items():
        inside = sorted((ROOT / "src" / "farense_qlora" / part).glob("*.py"))
        names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in inside]
        bodies = [f"## `{name}`\n\n::: {name}\n" for name in names if not name.endswith("__init__")]
        page = api / f"{part.replace('/', '_') or 'base'}.md"
        page.write_text(f"# {title}\n\n" + "\n".join(bodies), encoding="utf-8")


def _relinked(name: str, tracked: set[str], folder: Path) -> str:
    """The text of the page `name` with its links led to where things lie in `folder`."""
    here, new_here = (ROOT / name).parent, Path(RENAMED.get(name, name)).parent

    def lead(found: re.Match[str]) -> str:
        path, sharp, anchor = found[1].partition("#")
        target = os.path.relpath((here / path).resolve(), ROOT)
        if not path or target not in tracked:
            return found[0]
        if not target.endswith((".md", ".png", ".svg")):
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / target, folder / target)
        return f"]({os.path.relpath(RENAMED.get(target, target), new_here)}{sharp}{anchor})"

    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\((?![a-z]+:)([^)\s]+)\)", lead, text)


if __name__ == "__main__":
    sys.exit(main())
