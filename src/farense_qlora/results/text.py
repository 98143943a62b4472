"""Numbers as the Portuguese write them, and tables for the terminal."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under `header`: the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    ruled = [header, ["─" * width for width in widths], *rows]
    lines = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in ruled]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *line[1:]]) for row, line in zip(ruled, lines, strict=True)
    )


def percent(share: float) -> str:
    """A share as the Portuguese write it: 0.625 is «62,5 %»."""
    return f"{100 * share:.1f} %".replace(".", ",")


def decimal(value: float, digits: int = 3) -> str:
    """A number with a decimal comma, and a thin space between the thousands."""
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", "\u202f,"))
