"""A bar is drawn where it can be redrawn, and is a few lines where it cannot."""

import sys

import pytest

from farense_qlora.bar import Bar


def test_in_a_file_a_bar_is_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # which other tests import
    with Bar(total=1000, desc="a ler", bar_format="{desc}: {n_fmt}") as bar:
        for _ in range(1000):
            bar.update()
        bar.refresh()
    assert capfd.readouterr().err.splitlines() == ["a ler: 1000"]
