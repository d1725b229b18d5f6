"""The templates of this folder, with everything escaped that comes from outside."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

_PLACEHOLDER = re.compile(r"<(?:p|t|box)\d+>")


@cache
def environment() -> Environment:
    """Loads templates; filters: ``placeholders`` and ``n``, a number with one decimal for SVG."""
    made = Environment(
        loader=PackageLoader("spatial_mllm_ros.visualisation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["placeholders"] = placeholders
    made.filters["n"] = lambda value: f"{value:.1f}"
    return made


def placeholders(text: str) -> Markup:
    """A question with <p0>, <box0> and <t0> set apart, everything escaped."""
    out, end = Markup(), 0
    for match in _PLACEHOLDER.finditer(text):
        out += escape(text[end : match.start()]) + Markup("<code>{}</code>").format(match[0].strip("<>"))
        end = match.end()
    return out + escape(text[end:])
