"""Texts and pages for people, made from the Jinja templates that lie beside the code that fills them."""

import json
import shlex
from functools import cache

import jinja2

from .text import counted, decimal, percent, plain, scientific


def render(template: str, /, **values: object) -> str:
    """The text of `template`, a path inside this package such as `ui/report.html`, filled with `values`.

    In HTML the values are escaped. Besides Jinja's own filters there are `sh` (a word for a shell), `quoted`
    (a string literal for Python, JavaScript or JSON) and the numbers of `text.py`. Raises `jinja2`'s errors
    when a value is missing.
    """
    return environment().get_template(template).render(**values)


@cache
def environment() -> jinja2.Environment:
    """What renders templates, here and where others of the kind lie."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("farense_qlora", ""),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "sh": lambda word: shlex.quote(str(word)),
        "quoted": lambda text: json.dumps(str(text), ensure_ascii=False),
        "counted": counted,
        "decimal": decimal,
        "percent": percent,
        "plain": plain,
        "scientific": scientific,
    }
    return environment
