"""Where the store is: SQLite in a file of the user's own by default, PostgreSQL by its URL."""

from __future__ import annotations

import os
import re
from pathlib import Path

from turnout.core.errors import InvalidInput
from turnout.deploy.home import home

_EXAMPLE = "sqlite:////var/lib/turnout/store.db or postgresql://user@host:5432/database"


def default_file(name: str = "store") -> Path:
    """`store/NAME.db` in `$TURNOUT_HOME`, or in `turnout` in `$XDG_STATE_HOME`, or in `~/.local/state/turnout`.

    Not among the caches, which a user may delete at any time.
    """
    if os.environ.get("TURNOUT_HOME"):
        return home() / "store" / f"{name}.db"
    states = os.environ.get("XDG_STATE_HOME", "")
    state = Path(states) if Path(states).is_absolute() else Path.home() / ".local" / "state"
    return state / "turnout" / "store" / f"{name}.db"


def default_url(name: str = "store") -> str:
    """The same as a URL. name: tells several servers of one user apart."""
    return f"sqlite:///{default_file(name)}"


def sqlite_file(url: str) -> Path | None:
    """The file that a URL names, None for PostgreSQL. Raises InvalidInput for any other URL."""
    if not url:
        return default_file()
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and "?" not in rest and ":memory:" not in rest:
        return Path(rest[1:]).expanduser().absolute()
    if scheme in {"postgresql", "postgres"} and rest:
        return None
    raise InvalidInput(
        "this is no place for a store that lasts", field="store", got=without_password(url), example=_EXAMPLE
    )


def is_there(url: str) -> bool:
    """Whether something may be in the store already: its file is there, or nobody can tell without asking it."""
    file = sqlite_file(url)
    return file is None or file.exists()


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    shown = re.sub(r"(://[^:/@?]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", shown)
