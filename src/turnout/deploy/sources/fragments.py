"""The part of a URI after `#`: what it is pinned to, and how to take it (`unpack=no`)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote

from turnout.core.errors import SourceFailed


def parted(uri: str) -> tuple[str, dict[str, str]]:
    """The URI without its fragment, and what the fragment says ("a=1&b=2")."""
    bare, _, fragment = uri.partition("#")
    try:
        pairs = parse_qsl(fragment, keep_blank_values=True, strict_parsing=True) if fragment else []
    except ValueError:
        raise SourceFailed(f"cannot read {'#' + fragment!a} at the end of {bare!a}; expected #name=value") from None
    return bare, dict(pairs)


def joined(uri: str, more: Mapping[str, str]) -> str:
    """The URI with more said in its fragment, sorted, so that equal meaning is equal text."""
    bare, said = parted(uri)
    said.update(more)
    return (
        bare + "#" + "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(said.items()))
    )
