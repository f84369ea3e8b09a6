"""Where artifacts come from: one file per kind of place, and the cache that keeps what was fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from turnout.core.errors import SourceFailed

if TYPE_CHECKING:
    from turnout.deploy.sources.source import Source

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
#: `models:Churn` and `python:model.py:Churn` are code, although `models:/churn/3` is a URI.
_CODE = re.compile(r"[A-Za-z_][\w.]*\Z|.+\.py:[A-Za-z_][\w.]*\Z", re.DOTALL)


def source_of(uri: str) -> Source | None:
    """The source that takes a URI; None for a plain path or a reference to Python code.

    Raises SourceFailed for a URI of a kind that is not known.
    """
    found = _URI.match(uri)
    if found is None or _CODE.match(found[2]):
        return None
    from turnout.deploy.sources.known import SOURCES  # brings HTTP and TLS, which a server of local files never needs

    scheme = found[1].lower()
    for source in SOURCES:
        if scheme in source.schemes:
            return source
    if not found[2].startswith("//"):
        return None
    known = ", ".join(f"{name}:" for source in SOURCES for name in source.schemes)
    raise SourceFailed(f"{scheme}: is no place that artifacts come from; known are {known} and plain paths")
