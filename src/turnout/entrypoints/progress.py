"""Long work shows how far it is: one line that moves on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TextIO

_EVERY = 2.0


class Progress:
    """Says what is being done for whom. Ends its moving line before anything else is said."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._moving = self._out.isatty()
        self._open = False
        self._said: dict[str, tuple[str, float]] = {}

    def __call__(self, name: str, text: str) -> None:
        """Shows that `text` is being done for `name`."""
        if self._moving:
            self._out.write(f"\r\x1b[Kturnout: {name}: {text}"[:200])
            self._out.flush()
            self._open = True
            return
        kind = text.split(":", 1)[0]
        last, when = self._said.get(name, ("", 0.0))
        if kind == last and monotonic() - when < _EVERY:
            return
        self._said[name] = (kind, monotonic())
        print(f"turnout: {name}: {text}", file=self._out, flush=True)

    def end(self) -> None:
        """Clears the moving line."""
        if self._open:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._open = False
