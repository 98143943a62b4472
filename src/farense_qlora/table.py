"""A DataFrame that draws itself well: in a notebook, light or dark, in its HTML copy and in a terminal."""

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import pandas as pd

from .text import decimal

# Notebook front ends align every table to the right; `!important` is what it takes to differ.
STYLE = """<style>
div.fq {overflow-x: auto}
table.fq {border-collapse: collapse; font-size: 13px; line-height: 1.35; margin: 6px 0}
table.fq caption {text-align: left !important; font-weight: 600; padding: 4px 0; color: inherit}
table.fq td, table.fq th {text-align: left !important; vertical-align: top; padding: 5px 8px 5px 0;
    max-width: 46em; border-bottom: 1px solid rgba(128, 128, 128, .3)}
table.fq .n {text-align: right !important; font-variant-numeric: tabular-nums}
table.fq td.n {white-space: nowrap}
</style>"""


class Table(pd.DataFrame):
    """A pandas DataFrame, to sort, filter, plot and write; only how it is shown is its own.

    `caption` stands above it and `note` below, `formats` says by column how a value is shown to people
    (numbers without one have a decimal comma), `header` whether columns have names worth showing. What pandas
    makes of a table (sorted, filtered, some columns) is a table with the same formats.

    >>> table = Table({"passo": [100, 200], "perda": [2.5, 1.25]})
    >>> print(table[table["perda"] < 2])
    passo  perda
    ─────  ─────
      200  1,250
    """

    _metadata = ["caption", "formats", "header", "note"]  # noqa: RUF012  pandas' own name for what it hands on
    caption: str
    formats: Mapping[str, Callable[[Any], str]]
    header: bool
    note: str

    def __init__(
        self,
        data: Any = None,
        *args: Any,
        caption: str = "",
        formats: Mapping[str, Callable[[Any], str]] | None = None,
        header: bool = True,
        note: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, *args, **kwargs)  # type: ignore[call-arg]
        self.caption, self.formats, self.header, self.note = caption, formats or {}, header, note

    @classmethod
    def of_facts(cls, caption: str, facts: Iterable[tuple[str, str]]) -> "Table":
        """Two columns without a header: what, and what about it."""
        return cls(list(facts), columns=["", "valor"], caption=caption, header=False)

    @property
    def _constructor(self) -> Callable[..., "Table"]:
        return Table

    def cells(self) -> list[list[str]]:
        """Every cell as people read it, row by row; a dash for what is missing (None or NaN)."""
        return [
            [
                "—" if value is None or value != value else self.formats.get(str(name), _plain)(value)
                for name, value in zip(self.columns, row, strict=True)
            ]
            for row in self.itertuples(index=False)
        ]

    def _numeric(self) -> list[bool]:
        return [
            pd.api.types.is_numeric_dtype(kind) or name in self.formats for name, kind in self.dtypes.items()
        ]

    def _repr_html_(self) -> str:
        kinds = [" class=n" if numeric else "" for numeric in self._numeric()]

        def line(cells: Iterable[object], tag: str) -> str:
            return "".join(
                f"<{tag}{kind}>{escape(str(cell))}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)
            )

        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        head = f"<tr>{line(self.columns, 'th')}</tr>" if self.header else ""
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in self.cells())
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f'{STYLE}<div class="fq"><table class=fq>{caption}{head}{body}</table></div>{note}'

    def __repr__(self) -> str:
        rows = [list(map(str, self.columns)), *self.cells()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [rows[0], ["─" * width for width in widths]] if self.header else []
        text = "\n".join(
            "  ".join(
                cell.rjust(width) if numeric else cell.ljust(width)
                for cell, width, numeric in zip(line, widths, self._numeric(), strict=True)
            ).rstrip()
            for line in [*lines, *rows[1:]]
        )
        return "\n".join(filter(None, (self.caption, text, self.note)))

    __str__ = __repr__

    def to_markdown(self) -> str:  # type: ignore[override]
        """The table for a page of documentation."""
        rule = ["---:" if numeric else "---" for numeric in self._numeric()]
        lines = [[str(name) for name in self.columns], rule, *self.cells()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


class Drawn:
    """What is drawn as its `table`, in a notebook and in a terminal."""

    def table(self) -> Table:
        """The same for people."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def _plain(value: object) -> str:
    """A value that is there, as people read it: a decimal comma, «sim» or «não»."""
    if isinstance(value, bool):
        return "sim" if value else "não"
    return decimal(value) if isinstance(value, float) else str(value)
