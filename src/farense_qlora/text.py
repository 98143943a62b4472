"""Numbers as the Portuguese write them, and amounts, times and sizes."""

from html import escape


class Said:
    """What tells about itself in a sentence, its `repr`: in a cell, the text wraps between words."""

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


class Sentence(Said, str):
    """What a person is told; without quotation marks in a cell too."""

    __repr__ = str.__str__


def percent(share: float) -> str:
    """A share as the Portuguese write it: 0.625 is «62,5 %»."""
    return f"{decimal(100 * share, 1)} %"


def plain(value: float) -> str:
    """A setting as it was given, with a decimal comma: 0.05 is «0,05»."""
    return f"{value:g}".replace(".", ",")


def decimal(value: float, digits: int = 3) -> str:
    """A number with a decimal comma, a thin space between the thousands, and a minus as long as a plus."""
    return f"{value:,.{digits}f}".translate(str.maketrans(",.-", "\u202f,−"))


def counted(number: int, noun: str) -> str:
    """A number of things: `(1, "linha")` is «1 linha», and `(2, "repetição retirada")` «2 repetições
    retiradas»."""
    plural = (f"{word[:-2]}ões" if word.endswith("ão") else f"{word}s" for word in noun.split())
    return f"{number} {noun if number == 1 else ' '.join(plural)}"


def marked(answer: str, right: bool) -> str:
    """`answer`, with a sign that says whether it is the right one."""
    return f"{'✓' if right else '✗'} {answer}"


def size(gigabytes: float) -> str:
    """An amount of memory or disk, in megabytes below one gigabyte."""
    return f"{decimal(gigabytes, 2)} GB" if gigabytes >= 1 else f"{decimal(1000 * gigabytes, 1)} MB"


def scientific(value: float) -> str:
    """A small number such as a learning rate: 0.0003 is «3·10⁻⁴»."""
    if not 0 < abs(value) < 0.01:
        return plain(value)
    digits, power = f"{value:.2e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits.rstrip('0').rstrip('.')}·10{raised}".replace(".", ",")


def duration(seconds: float) -> str:
    """Seconds as people say them: 5400 is «1 h 30 min»."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
