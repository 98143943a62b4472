"""The data as the model will see them, row by row: the tokens, and in colour those that are learnt."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython.display import HTML, DisplayHandle, display

from ..data.load import Data
from ..text import counted
from .kernel import tethered

LEARNT = "background:rgba(43,140,196,.38)"
MASKED = "background:rgba(128,128,128,.14)"
TOKEN = "border-radius:3px;margin:1px;padding:0 1px;white-space:pre;display:inline-block;line-height:1.4"


class RowView:
    """Rows to leaf through: every token in a box, the learnt ones in colour, special ones in bold.

    `lines` says which rows of the file to show, and in what order; all of them when it is None. As the last
    line of a cell it shows itself with its buttons; a saved notebook keeps the row last shown.

    >>> fq.RowView(data).find("Hajry")
    True
    """

    def __init__(self, data: Data, lines: Iterable[int] | None = None):
        self.data, self.tokenizer, self.row = data.training, data.tokenizer, 0
        if lines is not None:
            self.data = self.data.of_lines(lines)
        self._handle: DisplayHandle | None = None
        self._search = widgets.Text(placeholder="procurar uma palavra", layout={"width": "240px"})
        icons = {"Anterior": "arrow-left", "Seguinte": "arrow-right", "Procurar": "search"}
        back, on, find = (
            widgets.Button(description=name, icon=icon, layout={"width": "120px"})
            for name, icon in icons.items()
        )
        back.on_click(lambda _: self.show(self.row - 1))
        on.on_click(lambda _: self.show(self.row + 1))
        find.on_click(lambda _: self.find(self._search.value))
        self._bar = tethered(widgets.HBox([back, on, self._search, find]))

    def show(self, row: int) -> None:
        """Show the row number `row`, counted round from either end."""
        self.row = row % len(self.data)
        if self._handle:
            self._handle.update(HTML(self._repr_html_()))

    def find(self, word: str) -> bool:
        """Show the next row whose text has `word`, whatever its case; whether there is one."""
        for step in range(1, len(self.data) + 1):
            row = (self.row + step) % len(self.data)
            if word.casefold() in self.tokenizer.decode(self.data[row].tokens.tolist()).casefold():
                self.show(row)
                return True
        return False

    def _ipython_display_(self) -> None:
        display(self._bar)
        self._handle = display(HTML(self._repr_html_()), display_id=True)

    def _repr_html_(self) -> str:
        example, special = self.data[self.row], set(self.tokenizer.all_special_ids)
        tokens = example.tokens.tolist()
        mask = [False, *example.supervised[1:]]  # nothing stands before the first token to predict it from
        boxes = []
        for token, text, learnt in zip(tokens, pieces(self.tokenizer, tokens), mask, strict=True):
            style = f"{TOKEN};{LEARNT if learnt else MASKED}{';font-weight:700' if token in special else ''}"
            shown = escape(text).replace("\n", "⏎") or "∅"
            boxes.append(f'<span title="{token}" style="{style}">{shown}</span>' + "<br>" * text.count("\n"))
        lost = int(self.data.whole[self.row] - self.data.lengths[self.row])
        cut = f"; ✂ {counted(lost, 'token cortado')} no fim" if lost else ""
        return (
            f'<p style="margin:6px 0;opacity:.75">linha {self.data.lines[self.row]} do ficheiro, '
            f"{self.row + 1} de {len(self.data)}: {len(tokens)} tokens{cut}; aprende-se "
            f'<span style="{TOKEN};{LEARNT}">o que tem esta cor</span> ({sum(mask)}), '
            f'<span style="{TOKEN};{MASKED}">o resto</span> só se lê</p>'
            f'<div style="line-height:1.9;max-width:920px">{"".join(boxes)}</div>'
        )


def pieces(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The text of each token where it stands: joined, they are the text of all, but for split characters."""
    texts = []
    for before, token in zip([None, *tokens[:-1]], tokens, strict=True):
        alone = tokenizer.decode([token])
        if before is not None:
            first = tokenizer.decode([before])
            both = tokenizer.decode([before, token])
            alone = both.removeprefix(first) if both.startswith(first) else alone
        texts.append(alone)
    return texts
