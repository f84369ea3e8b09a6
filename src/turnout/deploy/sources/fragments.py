"""URIs in their parts; the one after `#` says what it is pinned to, and how to take it (`unpack=no`)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

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


def split(uri: str) -> SplitResult:
    """The parts of a URI. Raises SourceFailed for one that has none, such as `https://[::1/x`."""
    try:
        parts = urlsplit(uri)
        _ = parts.port, parts.hostname
    except ValueError:
        raise SourceFailed(f"{uri.partition('?')[0].rpartition('@')[2][:200]!a} is no address") from None
    return parts
