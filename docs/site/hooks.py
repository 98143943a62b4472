"""What MkDocs is told besides mkdocs.yml: the pages lie where the repository has them, and each folder of the
package has a page of its own."""

import os
import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "farense_qlora"
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> None:
    """The API in the navigation."""
    config.nav.append({"API": list(_api())})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Every page, picture and file that a page links to, and the pages of the API."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    tracked = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    pages = {name for name in tracked if name.endswith(".md")}
    linked = {
        os.path.normpath(Path(page).parent / link)
        for page in pages
        for link in LINK.findall((ROOT / page).read_text(encoding="utf-8"))
    }
    for name in sorted(pages | linked & tracked):
        # MkDocs would make a README the first page of its folder: here the first page of all is the index.
        address = "index.html" if name == "DOCS_INDEX.md" else name.removesuffix(".md") + ".html"
        files.append(
            File(name, str(ROOT), config.site_dir, False, dest_uri=address if name in pages else None)
        )
    for name, text in _api().items():
        files.append(File.generated(config, name, content=text))


def on_post_page(output: str, **_: object) -> str:
    """Keep each flag on one line."""
    whole = lambda code: re.sub(r"--[\w-]+", r"<span>\g<0></span>", code[0])
    return re.sub(r"<code>[^<]*</code>", whole, output)


def _api() -> dict[str, str]:
    """The page of each folder of the package, by its name in the site."""
    pages = {}
    for folder in sorted({module.parent for module in SOURCE.rglob("*.py")}):
        name = ".".join(folder.relative_to(SOURCE.parent).parts)
        modules = [f"{name}.{module.stem}" for module in sorted(folder.glob("[!_]*.py"))]
        bodies = [f"\n## `{module}`\n\n::: {module}\n" for module in modules]
        pages[f"api/{name}.md"] = f"# {name}\n" + "".join(bodies)
    return pages
