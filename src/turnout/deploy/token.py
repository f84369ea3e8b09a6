"""The token that the admin API of a server asks for: made at its first start, readable by its user alone."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from turnout.deploy.home import home

_BYTES = 32


class Token:
    """The token of the server on one HTTP port; it stays the same when that is started again."""

    def __init__(self, port: int) -> None:
        self._path = home() / "run" / f"{port}.token"
        self._value = ""

    @property
    def value(self) -> str:
        """The token. Raises OSError where its file can be neither read nor written."""
        if not self._value:
            self._value = _kept(self._path) or _made(self._path)
        return self._value

    def fits(self, said: str) -> bool:
        """Whether somebody has said the right one; takes as long whatever they said."""
        return hmac.compare_digest(said.encode(), self.value.encode())


def _kept(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.stat().st_mode & 0o077 == 0:  # one that others can read is no secret any more
            return path.read_text(encoding="ascii").strip()
    return ""


def _made(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    value = secrets.token_urlsafe(_BYTES)
    new = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value + "\n")
    new.replace(path)
    return value
