"""The glossary has each term once, in the order in which one looks for it, and a page that says more."""

import re
import unicodedata
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "references" / "GLOSSARIO.md"


def test_terms_stand_once_and_in_alphabetical_order() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[[^]]+\]\(([^)#]+)", text, re.M)
    assert len(rows) == text.count("\n|") - 2 >= 35
    plain = [unicodedata.normalize("NFD", term.lower()).encode("ascii", "ignore") for term, _ in rows]
    assert plain == sorted(set(plain))
    assert all((PAGE.parent / target).is_file() for _, target in rows)
