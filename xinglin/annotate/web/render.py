"""Templates and static files: autoescaped, strict about what is missing, no access to anything outside the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from functools import cache, partial
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from xinglin.annotate.web.texts import FOLD, parts
from xinglin.annotate.web.words import word

FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("xinglin.annotate.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(parts=parts, FOLD=FOLD, stamp=stamp)
    made.filters["moment"] = lambda ms: datetime.fromtimestamp(ms / 1000).strftime("%m-%d %H:%M")
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page; `t("name")` in a template is a word in its language."""
    return _environment().get_template(template).render(t=partial(word, locale=values["locale"]), **values)


@cache
def static_file(name: str) -> bytes:
    """One of `FILES`."""
    return (resources.files("xinglin.annotate.web") / name).read_bytes()


@cache
def stamp(name: str) -> str:
    """The address of a static file, with its hash, so that a browser never keeps an old one."""
    return f"/static/{name}?{hashlib.sha256(static_file(name)).hexdigest()[:8]}"
