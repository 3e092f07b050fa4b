"""What every page has in common: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pydantic import BaseModel

from leakbench.errors import printable
from leakbench.reports.grid import LEVELS
from leakbench.reports.vocabulary import explained


def fill(template: str, embedded: BaseModel, also: str = "", **parts: Any) -> str:
    """The template with its parts, the style sheet, the script, and ``embedded`` as packed JSON inside.

    ``also``: stem of a sheet and a script that the page has besides those of every page.
    """
    stems = ("report", also) if also else ("report",)
    css, script = (Markup("\n").join(_source(f"{stem}.{kind}") for stem in stems) for kind in ("css", "js"))
    return (
        environment()
        .get_template(template)
        .render(policy=_policy(css, script), css=css, script=script, embedded=_embedded(embedded), **parts)
    )


@cache
def environment() -> Environment:
    """The templates, which escape whatever a run put into its record."""
    templates = Environment(
        loader=PackageLoader("leakbench.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_legible,
    )
    templates.filters["unbroken"] = _unbroken
    templates.filters["breakable"] = _breakable
    templates.filters["explained"] = explained
    templates.globals["levels"] = LEVELS
    return templates


def _legible(value: Any) -> Any:
    """Text of others with its control characters shown and not obeyed, those that turn the writing direction too."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(part if part in "\n\t" else printable(part) for part in re.split(r"([\n\t])", value))


_VALUE = re.compile(r"(?<!\S)[\d.,]+ \[[^\]<]{1,40}\](?: n=[\d,]*\d)?")


def _unbroken(text: str) -> Markup:
    """The text, escaped, with every value kept on one line with its interval and n."""
    return Markup(_VALUE.sub(r'<span class="nowrap">\g<0></span>', str(escape(_legible(text)))))


def _breakable(text: str) -> Markup:
    """The text, escaped, with places to break it: after underscores and commas, before parameters in brackets."""
    return Markup(re.sub(r"(?<=[_,])(?=\w)|(?=\[)", "<wbr>", str(escape(_legible(text)))))


def _source(name: str) -> Markup:
    """A style sheet or script of ours, which goes into the page as it is."""
    return Markup(resources.files("leakbench.reports").joinpath("templates", name).read_text(encoding="utf-8"))


def _policy(css: str, script: str) -> str:
    """Nothing may be fetched, and only the one sheet and the one script of the page may run."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_digest(css)}'",
            f"script-src '{_digest(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _embedded(record: BaseModel) -> Markup:
    """The record as JSON, packed: with many classes it is the most of a page. Base64 can't end its script element."""
    packed = gzip.compress(record.model_dump_json().encode(), mtime=0)
    return Markup(base64.b64encode(packed).decode("ascii"))
