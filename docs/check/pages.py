"""The pages as data: their lines, blocks and prose; what is checked without running anything."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, LONGEST_RUN = 250, 25
GENERATED = re.compile(r"<!-- gerado: (\S+) -->\n(.*?)<!-- fim -->", re.DOTALL)
FENCED = re.compile(r"^( *)(`{3,})(\w*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of its fence, and the line above it."""

    language: str
    text: str
    line: int
    above: str


def tracked() -> list[Path]:
    """The files of the repository, with those that are not committed yet."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return sorted({ROOT / name for name in names if (ROOT / name).is_file()})


@cache
def pages() -> dict[str, str]:
    """Every Markdown page of the repository: its path, and its text."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in tracked()
        if path.suffix == ".md"
    }


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in FENCED.finditer(text):
        before = text[: found.start()].splitlines()
        yield Block(found[3], found[4], len(before) + 1, before[-1].strip() if before else "")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page, without what is in code blocks and comments."""
    for pattern in (FENCED, COMMENT):
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    return enumerate(text.splitlines(), 1)


def check_length() -> Iterator[str]:
    """Pages that are too long."""
    for page, text in pages().items():
        if (count := len(text.splitlines())) > MOST_LINES:
            yield f"{page}: {count} linhas; o máximo são {MOST_LINES}"


def check_duplicates() -> Iterator[str]:
    """Runs of more than `LONGEST_RUN` words that stand twice, outside code and generated parts."""
    seen: dict[tuple[str, ...], str] = {}
    for page, text in pages().items():
        own = GENERATED.sub(lambda found: "\n" * found[0].count("\n"), text)
        words = [(word, line) for line, said in prose(own) for word in re.findall(r"\w+", said.lower())]
        again = 0
        for start in range(len(words) - LONGEST_RUN):
            run = tuple(word for word, _ in words[start : start + LONGEST_RUN + 1])
            here = f"{page}:{words[start][1]}"
            if run in seen and start >= again:
                yield f"{here}: repete {seen[run]}: «{' '.join(run[:10])} …»"
                again = start + len(run)
            seen.setdefault(run, here)
