"""What looks wrong is found, each fault by its name, and nothing in a page that is right."""

import pytest
from browser.layout import faults
from playwright.sync_api import Page

PAGE = """
<div class="jp-NotebookPanel"><div class="jp-WindowedPanel-outer" style="width: 400px">
<div class="jp-Cell" data-windowed-list-index="3"><div class="jp-OutputArea-output" style="overflow: auto">{}
</div></div></div></div>
"""
RIGHT = "<div>uma linha</div><button>Parar</button><table><tr><td>perda</td><td>0,5</td></tr></table>"


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<div style="width: 600px">largo</div>', "scrolls sideways"),
        ('<div style="overflow: auto; width: 50px"><p style="width: 90px">a</p></div>', "scrolls sideways"),
        ('<div style="overflow: hidden; white-space: nowrap; width: 30px">Aprendizagem</div>', "cut"),
        ('<input style="width: 40px" value="mlx-community/Mistral-7B">', "cut"),
        ('<p>debaixo</p><p style="margin-top: -30px">por cima</p>', "overlaps"),
        ('<p>texto</p><div style="height: 200px"></div><p>texto</p>', "px of nothing"),
        ('<div style="height: 200px"></div>', "px of nothing"),
        ('<img src="data:image/png;base64,AAAA" style="width: 20px; height: 20px">', "no picture"),
    ],
)
def test_a_fault_is_found(page: Page, html: str, fault: str) -> None:
    page.set_content(PAGE.format(RIGHT + html))
    assert [found for found in faults(page) if fault in found], faults(page)


def test_a_page_that_is_right_has_none(page: Page) -> None:
    page.set_content(PAGE.format(RIGHT))
    assert faults(page) == []
