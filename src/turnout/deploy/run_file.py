"""What a controller leaves behind for the next one, in case it is killed: a file for each HTTP port, and its lock.

It is written before anything is done that it tells of, and need not survive the machine: neither do the processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from turnout.deploy.home import home
from turnout.deploy.locks import FileLock


class Known(NamedTuple):
    """A process that the file names, and that still runs. `pidfd` is whoever's that has asked for it."""

    name: str
    pid: int
    pidfd: int
    about: dict[str, Any]


class RunFile:
    """The file of the server on one HTTP port, in a directory of its user alone. Who holds its lock is that server."""

    def __init__(self, port: int) -> None:
        folder = home() / "run"
        self.path = folder / f"{port}.json"
        #: Where controllers listen for children that have lost theirs.
        self.children = folder / f"{port}.children.sock"
        self._lock = FileLock(folder / f"{port}.lock")

    def take(self) -> bool:
        """Makes this process the server of that port; False where another is, or where nothing can be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self._lock.take(wait=False)
        except OSError:
            return False

    def fileno(self) -> int:
        """The descriptor that holds the lock; whoever has a copy of it holds the lock too."""
        return self._lock.fileno()

    def read(self) -> dict[str, Any] | None:
        """What was left behind; None where there is nothing to be used."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("form") == FORM else None

    def write(self, found: dict[str, Any]) -> None:
        """Replaces it as a whole. Raises OSError."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"form": FORM, **found}))
        new.replace(self.path)

    def forget(self) -> None:
        """This port is nobody's any more."""
        for path in (self.path, self.children, self._lock.path):
            with contextlib.suppress(OSError):
                path.unlink()
        self.release()

    def release(self) -> None:
        """Lets go of the lock, and leaves the rest to whoever comes."""
        with contextlib.suppress(OSError):
            self._lock.release()


#: Of the file. What another release has written is not read.
FORM = 1


def mark_of(pid: int) -> str:
    """What tells a process from all that ever had its number on this machine; "" where it does not run (Linux)."""
    try:
        fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def server_of(found: dict[str, Any]) -> Known | None:
    """The process that the user has started, if that still runs."""
    return _known({"name": "server", **found["server"]})


def away(port: int) -> str:
    """What to say to somebody who finds no controller of that port; "" where nothing serves there."""
    found = RunFile(port).read()
    if found is None:
        return ""
    server, children = server_of(found), living(found)
    for one in (*children, *([server] if server else [])):
        os.close(one.pidfd)
    if server is not None:
        return "the control plane is being started again; predictions go on"
    if not children:
        return ""
    return (
        f"the server on HTTP port {port} was killed, and predictions go on without it: `turnout serve` with the same "
        f"words takes them over, `turnout stop --port {port}` ends them"
    )


def living(found: dict[str, Any]) -> list[Known]:
    """The children in what was left behind that still run."""
    return [one for entry in found["children"] if (one := _known(entry)) is not None]


def _known(entry: dict[str, Any]) -> Known | None:
    if sys.platform != "linux":
        return None
    try:
        pidfd = os.pidfd_open(entry["pid"])
    except OSError:
        return None
    if mark_of(entry["pid"]) != entry["mark"]:  # looked at with the descriptor in hand: it cannot change any more
        os.close(pidfd)
        return None
    return Known(entry["name"], entry["pid"], pidfd, entry)
