"""The pages as data: their lines, blocks, links and anchors; what is checked without running anything."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
INDEX, README = ROOT / "DOCS_INDEX.md", ROOT / "README.md"
SOURCES = ROOT / "data" / "facts" / "SOURCES.md"
MOST_LINES, LONGEST_RUN = 250, 25
SKIP = re.compile(r"<!-- (?:não corre|not run): (.+) -->")
OUTPUT = re.compile(r"<!-- saída: (.+) -->")
GENERATED = re.compile(r"<!-- gerado: (\S+) -->\n(.*?)<!-- fim -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its fence, and the comment above it, if any."""

    language: str
    text: str
    line: int
    above: str


@cache
def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, text=True
    )
    return sorted({ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()})


def documentation() -> list[Path]:
    """The pages that this documentation consists of: the index and what is under docs/."""
    return [page for page in pages() if page == INDEX or ROOT / "docs" in page.parents]


def portuguese() -> list[Path]:
    """The pages for people who use this: all but the README and the notes on sources."""
    return [page for page in pages() if page not in (README, SOURCES)]


def named(page: Path) -> str:
    """The path of `page` as messages give it."""
    return str(page.relative_to(ROOT))


@cache
def text(page: Path) -> str:
    """The text of `page`."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of `page`, in order."""
    found: list[Block] = []
    fence, language, start, lines = "", "", 0, text(page).splitlines()
    for number, line in enumerate(lines, 1):
        if fence and line.strip() == fence:
            body = lines[start : number - 1]
            above = lines[start - 2].strip() if start > 1 else ""
            found.append(Block(language, "\n".join(body) + "\n", start, above))
            fence = ""
        elif not fence and (opened := re.match(r"\s*(`{3,})(\w*)\s*$", line)):
            fence, language, start = opened[1], opened[2], number
    return found


def prose(page: Path, generated: bool = True) -> str:
    """The text of `page` without code blocks and comments, with as many lines; also without what is
    generated if `generated` is False."""
    blank = lambda found: "\n" * found[0].count("\n")
    plain = re.sub(r"^\s*(`{3,})\w*\n.*?^\s*\1\s*$", blank, text(page), flags=re.MULTILINE | re.DOTALL)
    if not generated:
        plain = GENERATED.sub(blank, plain)
    return re.sub(r"<!--.*?-->", blank, plain, flags=re.DOTALL)


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Each link and picture of `page` that leads into the repository, with its line."""
    for number, line in enumerate(prose(page).splitlines(), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
            if not re.match(r"[a-z]+:", target):
                yield number, unquote(target)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of `page`, as GitHub makes them."""
    seen: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        seen.append(f"{name}-{seen.count(name)}" if name in seen else name)
    return set(seen)


def check_links() -> Iterator[str]:
    """Links that lead nowhere, and pages that no chain of links from the index reaches."""
    leads: dict[Path, set[Path]] = {}
    for page in pages():
        leads[page] = set()
        for line, link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                yield f"{named(page)}:{line}: {link} não existe"
            elif anchor and anchor not in anchors(target):
                yield f"{named(page)}:{line}: {link}: a página não tem essa secção"
            leads[page].add(target)
    reached, front = {INDEX}, [INDEX]
    while front:
        for target in leads.get(front.pop(), set()) - reached:
            reached.add(target)
            front.append(target)
    yield from (
        f"{named(page)}: não se chega aqui a partir de {INDEX.name}"
        for page in pages()
        if page not in reached
    )


def check_length() -> Iterator[str]:
    """Pages that are too long."""
    for page in pages():
        if (count := len(text(page).splitlines())) > MOST_LINES:
            yield f"{named(page)}: {count} linhas; o máximo são {MOST_LINES}"


def check_duplicates() -> Iterator[str]:
    """Runs of more than `LONGEST_RUN` words that stand twice, outside code and generated parts."""
    seen: dict[tuple[str, ...], str] = {}
    size = LONGEST_RUN + 1
    for page in pages():
        words = [
            (word.lower(), number)
            for number, line in enumerate(prose(page, generated=False).splitlines(), 1)
            for word in re.findall(r"\w+", line)
        ]
        again = 0
        for start in range(len(words) - size + 1):
            run = tuple(word for word, _ in words[start : start + size])
            here = f"{named(page)}:{words[start][1]}"
            if run in seen and start >= again:
                yield f"{here}: repete {seen[run]}: «{' '.join(run[:10])} …»"
                again = start + size
            seen.setdefault(run, here)
