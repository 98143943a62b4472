"""Spelling, by the European Portuguese dictionary of hunspell and the project's own list of words."""

import re
from collections.abc import Iterator
from pathlib import Path

from pages import pages, prose

DICTIONARY = Path("/usr/share/hunspell/pt_PT")
WORDS = Path(__file__).with_name("palavras.txt")
ENGLISH = ("README.md", "data/facts/SOURCES.md")
# Code, foreign words (in italics), the targets of links, and names of files and functions.
PASSED_OVER = re.compile(r"(?<!\*)\*[^*]+\*(?!\*)|`[^`]*`|\]\([^)]*\)|arXiv:\S+|[\w/]+[/_.]\w[\w/]*")


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
                if len(word) == 1 or word.isupper() or not known.isdisjoint((word, word.lower())):
                    continue
                if not look_up(word) and not all(map(look_up, word.split("-"))):
                    yield f"{page}:{number}: «{word}» não está no dicionário nem em {WORDS.name}"
                known.add(word)
