"""Texts and pages for people, made from the Jinja templates that lie beside the code that fills them."""

import json
import shlex

import jinja2

from .text import counted, decimal, percent, plain, scientific

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("farense_qlora", ""),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {
    "sh": lambda word: shlex.quote(str(word)),
    "quoted": lambda text: json.dumps(str(text), ensure_ascii=False),
    **{filter.__name__: filter for filter in (counted, decimal, percent, plain, scientific)},
}


def render(template: str, /, **values: object) -> str:
    """The text of `template`, a path inside this package such as `ui/report.html`, filled with `values`,
    which in HTML are escaped. Besides Jinja's own filters there are `sh` (a word for a shell), `quoted` (a
    string literal for Python, JavaScript or JSON) and the numbers of `text.py`."""
    return ENVIRONMENT.get_template(template).render(**values)
