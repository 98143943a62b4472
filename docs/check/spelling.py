"""Spelling, by the European Portuguese dictionary of hunspell and the project's own list of words."""

import re
from collections.abc import Iterator
from pathlib import Path

from pages import named, portuguese, prose

DICTIONARY = Path("/usr/share/hunspell/pt_PT")
# Code, foreign words (in italics), the targets of links, and names of files and functions.
PASSED_OVER = re.compile(r"(?<!\*)\*[^*]+\*(?!\*)|`[^`]*`|\]\([^)]*\)|arXiv:\S+|[\w/]+[/_.]\w[\w/]*")
WORDS = Path(__file__).with_name("palavras.txt")


def check_spelling() -> Iterator[str]:
    """Words that neither the dictionary nor `palavras.txt` knows; code and links are passed over."""
    if not DICTIONARY.with_suffix(".dic").exists():
        print(f"ortografia: por ver, falta {DICTIONARY}.dic (pacote hunspell-pt-pt)")
        return
    from spylls.hunspell import Dictionary

    dictionary = Dictionary.from_files(str(DICTIONARY))
    known: dict[str, bool] = dict.fromkeys(WORDS.read_text(encoding="utf-8").split(), True)
    for page in portuguese():
        for number, line in enumerate(prose(page).splitlines(), 1):
            plain = PASSED_OVER.sub(" ", line)
            for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", plain):
                if word not in known:
                    known[word] = (
                        len(word) == 1
                        or word.isupper()
                        or word.lower() in known
                        or dictionary.lookup(word)
                        or all(dictionary.lookup(part) for part in word.split("-"))
                    )
                if not known[word]:
                    yield f"{named(page)}:{number}: «{word}» não está no dicionário nem em {WORDS.name}"
