"""A child process with a wire to it: started, watched for its end, killed for sure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic

from turnout.runtime.wire import Message, Wire, pair

#: What is meant for the server's own interpreter. An environment is ours to keep bytecode in: without it, importing a
#: large library takes twice as long at every start.
_NOT_THEIRS = frozenset({"PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE"})
OnMessage = Callable[["Child", Message], None]
OnEnd = Callable[["Child", str], None]


class Child:
    """A process of ours. `on_message` gets what it says; `on_end` is called once, with how it ended."""

    def __init__(
        self,
        name: str,
        module: str,
        on_message: OnMessage,
        on_end: OnEnd,
        threads: int = 1,
        python: str = "",
    ) -> None:
        self.name = name
        self.started = monotonic()
        self._on_message = on_message
        self._on_end = on_end
        ours, theirs = pair()
        ours.setblocking(False)
        self.wire = Wire(ours)
        count = str(threads)
        environment = os.environ | {
            "OMP_NUM_THREADS": count,
            "OPENBLAS_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
        }
        if python:  # another environment has packages of its own, and of ours only what a worker needs
            from turnout.deploy.environments.worker_path import worker_path

            environment = {k: v for k, v in environment.items() if k not in _NOT_THEIRS}
            environment["PYTHONPATH"] = str(worker_path())
        with theirs:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                process_group=0,  # so that what a model forks ends with it
            )
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours.fileno(), self._read)
        self._ended = False
        self._pidfd = -1
        if sys.platform == "linux":  # a wire that a forked process inherited does not end with the child
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._exited)

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.pid}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tells it something; a child that is gone is reported by `on_end`, not here."""
        if not self._ended:
            try:
                self.wire.send(message, fds)
            except OSError:
                self._loop.call_soon(self._end)

    def kill(self) -> None:
        """Ends it at once; `on_end` follows."""
        if self._process.poll() is None:
            self._process.kill()

    def _read(self) -> None:
        try:
            for message, fds in self.wire.poll():
                for fd in fds:
                    os.close(fd)  # children have no descriptors to give
                self._on_message(self, message)
                if self._ended:
                    return
        except EOFError:
            self._end()

    def _exited(self) -> None:
        self._read()  # what it said last
        self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._loop.remove_reader(self.wire.fileno())
        self.wire.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._reap(deadline=monotonic() + 1.0)

    def _reap(self, deadline: float) -> None:
        # The wire's end comes a moment before the process can be reaped.
        code = self._process.poll()
        if code is None:
            if monotonic() > deadline:
                self._process.kill()
                deadline = float("inf")
            self._loop.call_later(0.002, self._reap, deadline)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._on_end(self, how)
