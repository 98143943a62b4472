"""What MkDocs is told besides mkdocs.yml: the pages lie where the repository has them, and each folder of the
package has a page of its own."""

import re
import subprocess
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "farense_qlora"
PUBLISHED = ("*.md", "*.png", "*.svg", "*INTEGRATION_GUIDE.md.j2", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Every page, picture and file that pages link to, and those of the API, which go to the navigation."""
    command = ["git", "ls-files", "-co", "--exclude-standard", *PUBLISHED]
    listed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    for name in [name for name in listed if (ROOT / name).is_file()]:
        # MkDocs would make a README the first page of its folder: here the first page of all is the index.
        page = "index" if name == "DOCS_INDEX.md" else name.removesuffix(".md")
        address = f"{page}.html" if name.endswith(".md") else None
        files.append(File(name, str(ROOT), config.site_dir, False, dest_uri=address))
    api: dict[str, str] = {}
    for module in sorted(SOURCE.rglob("[!_]*.py"), key=lambda module: (module.parent, module)):
        *folders, name = module.relative_to(SOURCE.parent).with_suffix("").parts
        folder = ".".join(folders)
        page = api.get(f"api/{folder}.md", f"# {folder}\n")
        api[f"api/{folder}.md"] = f"{page}\n## `{folder}.{name}`\n\n::: {folder}.{name}\n"
    for name, text in api.items():
        files.append(File.generated(config, name, content=text))
    config.nav.append({"API": list(api)})


def on_post_page(output: str, **_: object) -> str:
    """Keep each flag on one line."""
    whole = lambda code: re.sub(r"--[\w-]+", r"<span>\g<0></span>", code[0])
    return re.sub(r"<code>[^<]*</code>", whole, output)
