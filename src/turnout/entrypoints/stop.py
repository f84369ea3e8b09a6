"""`turnout stop`: a server of yours is ended, and what a killed one has left running too."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import time
from collections.abc import Sequence
from typing import Any

from turnout.core.errors import NotReady
from turnout.deploy.run_file import Known, RunFile, living, server_of

#: Beyond the time for what is in flight (seconds).
_SPARE = 10.0


def words(verbs: Any) -> None:
    """Adds the verb."""
    meaning = "end a server, and what a killed one has left running"
    parser = verbs.add_parser(
        "stop", help=meaning, description=f"{meaning[0].upper()}{meaning[1:]}.", allow_abbrev=False
    )
    parser.add_argument(
        "--port", type=int, default=8080, metavar="N", help="the HTTP port of the server that is meant (default 8080)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Returns when all of it has ended: 0 if what was in flight was answered. Raises NotReady if nothing runs there."""
    file = RunFile(arguments.port)
    found = file.read()
    if found is None:
        raise NotReady(f"no server of yours runs on HTTP port {arguments.port}; --port names another")
    patience = found["spec"]["drain_timeout"] + _SPARE
    server = server_of(found)
    if server is not None:
        return 0 if _end([server], patience) else 1
    while not file.take():  # whoever starts a server there at this moment
        time.sleep(0.05)
        if (server := server_of(file.read() or found)) is not None:
            return 0 if _end([server], patience) else 1
    children = living(found)
    routers = [one for one in children if one.name.startswith("router ")]
    drained = _end(routers, patience)
    _end([one for one in children if one not in routers], 1.0)
    file.forget()
    if not children:
        raise NotReady(f"no server of yours runs on HTTP port {arguments.port} any more; --port names another")
    return 0 if drained else 1


def _end(processes: Sequence[Known], patience: float) -> bool:
    """Has them end, and kills those that do not in time (seconds). False where there are such."""
    until = time.monotonic() + patience
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(one.pidfd, signal.SIGTERM)
    in_time = True
    for one in processes:
        poll = select.poll()
        poll.register(one.pidfd, select.POLLIN)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000.0):
            in_time = False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
        os.close(one.pidfd)
    return in_time
