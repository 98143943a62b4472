"""The data as the model will see them: a summary, and row by row the tokens, the learnt ones in colour."""

from collections.abc import Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython.display import HTML, DisplayHandle, display

from ..config import Config
from ..data.batches import make_sampler
from ..data.load import Data, Repeat
from ..data.tokens import Encoded
from ..model.base import Base
from ..model.cpu.parallel import side_by_side
from ..text import decimal, percent
from .tables import Table

LEARNT = "background:rgba(43,140,196,.38)"
MASKED = "background:rgba(128,128,128,.14)"
MEMORISED = "nenhuma: toda a validação está no treino, e só mede o que se decora"
TOKEN = "border-radius:3px;margin:1px;padding:0 1px;white-space:pre;display:inline-block;line-height:1.4"


def data_table(config: Config, base: Base, rows: Data) -> Table:
    """What training will see of `rows`: tokens, how full the windows are, and what is left out."""
    data = rows.training
    order = make_sampler(config, data.lengths, side_by_side(base.model))
    tokens = int((data.lengths - 1).sum())
    learnt = sum(int(example.supervised[1:].sum()) for example in data)
    batches = [batch for n in range(order.updates_per_epoch) for batch in order[n]]
    fill = "sem empacotar"
    if order.window:
        windows = sum(map(len, batches))
        fill = f"{percent(tokens / (windows * order.window))} de {windows} janelas de {order.window} tokens"
    facts = (
        ("Linhas", decimal(len(data), 0)),
        ("Tokens", f"{decimal(tokens, 0)}, dos quais se aprendem {percent(learnt / tokens)}"),
        ("Enchimento", fill),
        ("Atualizações por época", decimal(order.updates_per_epoch, 0)),
        (f"Cortadas a {config.max_seq_length} tokens", str(data.truncated)),
        ("Partidas, uma por resposta", str(data.split)),
        ("Com o texto do sistema na pergunta", str(data.folded)),
        ("Saltadas", _listed([f"{one.line}: {one.reason}" for one in data.bad])),
        ("Iguais a outras, deixadas de fora", _pairs(rows.repeats)),
        ("Da validação, deixadas de fora", MEMORISED if rows.memorised else _pairs(rows.leaks)),
        ("Mesma pergunta, outra resposta", _listed([" e ".join(map(str, one)) for one in rows.conflicts])),
        ("Validação", f"{len(rows.validation)} linhas" + (", tiradas do treino" if rows.split else "")),
    )
    return Table(("", ""), facts, "Dados de treino")


class RowView:
    """Rows to leaf through: every token in a box, the learnt ones in colour, special ones in bold.

    As the last line of a cell it shows itself with its buttons; a saved notebook keeps the row last shown.
    """

    def __init__(self, data: Encoded, tokenizer: Any):
        self.data, self.tokenizer, self.row = data, tokenizer, 0
        self._handle: DisplayHandle | None = None
        self._search = widgets.Text(placeholder="procurar uma palavra", layout={"width": "240px"})
        back, on, find = (
            widgets.Button(description=name, icon=icon, layout={"width": "120px"})
            for name, icon in (
                ("Anterior", "arrow-left"),
                ("Seguinte", "arrow-right"),
                ("Procurar", "search"),
            )
        )
        back.on_click(lambda _: self.show(self.row - 1))
        on.on_click(lambda _: self.show(self.row + 1))
        find.on_click(lambda _: self.find(self._search.value))
        self._bar = widgets.HBox([back, on, self._search, find])

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
        cut = f"; ✂ os últimos {lost} foram cortados" if lost else ""
        return (
            f'<p style="margin:6px 0;opacity:.75">linha {self.data.lines[self.row]} do ficheiro, '
            f"{self.row + 1} de {len(self.data)}: {len(tokens)} tokens{cut}; aprendem-se "
            f'<span style="{TOKEN};{LEARNT}">os {sum(mask)} desta cor</span>, os '
            f'<span style="{TOKEN};{MASKED}">outros</span> só se leem</p>'
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


def _pairs(repeats: Sequence[Repeat]) -> str:
    """How many, and the first few by line."""
    return _listed([f"a {one.line} repete a {one.of}" for one in repeats])


def _listed(lines: Sequence[str]) -> str:
    """How many, and the first few."""
    if not lines:
        return "0"
    return f"{len(lines)} (linhas: {'; '.join(lines[:3])}{' …' if len(lines) > 3 else ''})"
