"""Where log lines go: a file, or one of the standard streams. Nothing that goes wrong with it reaches the server."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

_journal = logging.getLogger(__name__)

#: Destinations that are no paths.
STREAMS = ("stderr", "stdout")


class LogFile:
    """A destination of lines, written without a buffer of its own: one system call for all lines at hand.

    A file is only appended to, so that several processes may share it. Raises OSError where it cannot be opened
    at the start; later trouble (disk full, reader gone) is counted in `lost_lines`, and the next write tries again.
    """

    def __init__(self, destination: str) -> None:
        self._path = None if destination in STREAMS else destination
        self._descriptor = _open(destination) if self._path else (2 if destination == "stderr" else 1)
        self._moved = False
        self._torn = False
        self.lines = 0
        self.lost_lines = 0

    def reopen(self) -> None:
        """Opens the path anew before the next write. Safe in a signal handler: it sets a flag."""
        self._moved = True

    def write(self, lines: Sequence[bytes]) -> None:
        """Writes whole lines (each ends with a newline)."""
        if self._moved:
            self._moved = False
            self._open_again()
        data = b"".join(lines)
        if self._torn:  # the last write broke off inside a line: begin a new one
            data = b"\n" + data
        done = 0
        try:
            while done < len(data):
                done += os.write(self._descriptor, memoryview(data)[done:])
        except OSError:
            written = data[:done]
            whole = written.count(b"\n") - (1 if self._torn and written else 0)
            self._torn = not written.endswith(b"\n") if written else self._torn
            self.lines += whole
            self.lost_lines += len(lines) - whole
        else:
            self._torn = False
            self.lines += len(lines)

    def close(self) -> None:
        """Closes a file; the standard streams stay open."""
        if self._path and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open_again(self) -> None:
        if self._path is None:
            return
        try:
            fresh = _open(self._path)
        except OSError as problem:  # go on with the file there is: its lines are better than none
            _journal.warning("the access log could not be opened again: %s", problem.strerror)
            return
        self.close()
        self._descriptor = fresh
        self._torn = False


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
