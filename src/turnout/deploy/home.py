"""Where Turnout keeps what it may throw away and make again: fetched artifacts, built environments."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$TURNOUT_HOME`, or `turnout` in `$XDG_CACHE_HOME`, or `~/.cache/turnout`. Absolute; not made here.

    A relative `$XDG_CACHE_HOME` is passed over, as its specification asks; a relative `$TURNOUT_HOME` counts from
    the current directory.
    """
    chosen = os.environ.get("TURNOUT_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(caches) if Path(caches).is_absolute() else Path.home() / ".cache") / "turnout"


def socket_path(port: int) -> Path:
    """Where the server on that HTTP port listens for its administrator."""
    return home() / "run" / f"{port}.sock"
