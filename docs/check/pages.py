"""The pages as data: their lines, blocks and prose; what is checked without running anything."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, LONGEST_RUN = 250, 25
DICTIONARY = Path("/usr/share/hunspell/pt_PT")
WORDS = Path(__file__).with_name("palavras.txt")
ENGLISH = ("README.md", "data/facts/SOURCES.md")
GENERATED = re.compile(r"<!-- gerado: (\S+) -->\n(.*?)<!-- fim -->", re.DOTALL)
# Code, foreign words (in italics), the targets of links, and names of files and functions.
PASSED_OVER = re.compile(r"(?<!\*)\*[^*]+\*(?!\*)|`[^`]*`|\]\([^)]*\)|arXiv:\S+|[\w/]+[/_.]\w[\w/]*")


def tracked() -> list[Path]:
    """The files of the repository, with those that are not committed yet."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return sorted({ROOT / name for name in names if (ROOT / name).is_file()})


@cache
def pages() -> dict[str, str]:
    """Every Markdown page of the repository: its path, and its text."""
    files = [path for path in tracked() if path.suffix == ".md"]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def blocks(text: str) -> Iterator[tuple[Token, str]]:
    """The fenced blocks of a page, in order, each with the comment right above it."""
    above = ""
    for token in MarkdownIt().parse(text):
        if token.type == "fence":
            yield token, above
        above = token.content.strip() if token.type == "html_block" else ""


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The numbered lines of a page, without what is in code blocks and comments."""
    lines = text.splitlines()
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "html_block"):
            start, end = token.map
            lines[start:end] = [""] * (end - start)
    return enumerate(lines, 1)


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


def check_spelling() -> Iterator[str]:
    """Words that neither the dictionary nor `palavras.txt` knows; code and links are passed over."""
    if not DICTIONARY.with_suffix(".dic").exists():
        print(f"ortografia: por ver, falta {DICTIONARY}.dic (pacote hunspell-pt-pt)")
        return
    from spylls.hunspell import Dictionary

    look_up = Dictionary.from_files(str(DICTIONARY)).lookup
    known = set(WORDS.read_text(encoding="utf-8").split())
    for page, text in pages().items():
        for number, line in prose(text) if page not in ENGLISH else ():
            for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", PASSED_OVER.sub(" ", line)):
                passed_over = len(word) == 1 or word.isupper() or word in known or word.lower() in known
                if not (passed_over or look_up(word) or all(map(look_up, word.split("-")))):
                    yield f"{page}:{number}: «{word}» não está no dicionário nem em {WORDS.name}"
                known.add(word)
