"""The navigation of the site has every page once, and keeps those of the code apart as the index does."""

import re

from pages import ROOT, pages


def test_every_page_is_in_the_navigation_once_and_those_of_the_code_in_their_own_group() -> None:
    _, navigation = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")
    user, code = (re.findall(r"\S+\.md", part) for part in navigation.split("Para quem mexe no código:"))
    assert sorted(user + code) == sorted(pages())
    _, index = pages()["DOCS_INDEX.md"].split("### Para quem mexe no código")
    assert sorted(re.findall(r"\| \[[^]]+\]\((\S+)\)", index)) == sorted(code)
