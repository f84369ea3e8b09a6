"""What the commands print: lines for people on standard error, tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from turnout.core.errors import InvalidInput

MIB = 1 << 20


def say(line: str) -> None:
    """A line about what is being done, beside what was asked for."""
    print(f"turnout: {line}", file=sys.stderr, flush=True)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, the first of them the heads, in columns as wide as they have to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def minute(when: float) -> str:
    """A moment (seconds since the epoch) in local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when))


def write_json(document: object, output: str | None, option: str = "--output") -> None:
    """Writes to a file, or to standard output where none is named. Raises InvalidInput for what cannot be written."""
    text = json.dumps(document, indent=1)
    if output is None:
        print(text)
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8")
    except OSError as problem:
        raise InvalidInput(f"cannot be written ({problem.strerror})", field=option, got=repr(output)) from None
