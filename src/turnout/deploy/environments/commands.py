"""Runs another program: by argv, line by line, in a process group of its own that ends with us or when told to."""

from __future__ import annotations

import atexit
import os
import re
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.environment import Tell

_PAUSE = 0.1
_KEPT_LINES = 400
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s'\"]+@")
_RUNNING: set[subprocess.Popen[bytes]] = set()
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Ended(NamedTuple):
    """How a command ended: its exit code (negative: the signal), and its last lines without credentials."""

    code: int
    lines: list[str]


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    tell: Tell,
    *,
    folder: Path,
    timeout: float,
    cancelled: Callable[[], bool] = lambda: False,
    keep: Sequence[int] = (),
) -> Ended:
    """Runs in `folder` to the end and tells each line of its output. `keep` are descriptors that the child inherits.

    Raises EnvironmentFailed after `timeout` seconds or once `cancelled` says so; then, and after any exception
    here, the child and all that it started are killed.
    """
    lines: list[str] = []
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=folder,
        pass_fds=tuple(keep),
        process_group=0,
    )
    _RUNNING.add(process)
    try:
        for line in _lines(process, monotonic() + timeout, cancelled):
            lines = [*lines[1 - _KEPT_LINES :], line]
            tell(line)
        return Ended(process.wait(), lines)
    except TimeoutError:
        raise EnvironmentFailed(f"{Path(command[0]).name} was ended after {timeout:g} s") from None
    finally:
        _end(process)
        _RUNNING.discard(process)
        if process.stdout is not None:
            process.stdout.close()


def without_credentials(text: str) -> str:
    """The text with user and password of every address in it made unreadable."""
    return _CREDENTIALS.sub("***@", text)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@atexit.register
def _end_all() -> None:
    """A server that ends does not wait for the thread in which it builds; what that has started ends too."""
    for process in tuple(_RUNNING):
        _end(process)


def _lines(process: subprocess.Popen[bytes], end: float, cancelled: Callable[[], bool]) -> Iterator[str]:
    """What it prints, until it closes its output. Raises TimeoutError, or EnvironmentFailed when cancelled."""
    assert process.stdout is not None  # noqa: S101  asked for above
    fd = process.stdout.fileno()
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if cancelled():
                raise EnvironmentFailed("the build was cancelled")
            if monotonic() > end:
                raise TimeoutError
            if not selector.select(_PAUSE):
                continue
            piece = os.read(fd, 65_536)
            *whole, rest = (rest + piece).split(b"\n")
            if not piece:
                whole = [rest]
            for line in whole:
                text = _COLOUR.sub("", line.decode(errors="replace")).rstrip()
                if text:
                    yield without_credentials(text)
            if not piece:
                return
