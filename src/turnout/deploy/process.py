"""A child process with a wire to it: started or found again, watched for its end, killed for sure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
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
    """A process of ours. `on_message` gets what it says; `on_end` is called once, with how it ended.

    pidfd: its own from now on, -1 where there is none. process: None for one that an earlier controller has started;
    it has no wire until it comes back and brings one. started: monotonic seconds, the same clock for every process.
    """

    def __init__(
        self, name: str, pid: int, pidfd: int, on_message: OnMessage, on_end: OnEnd,
        process: subprocess.Popen[bytes] | None = None, started: float | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.pid = pid
        self.started = monotonic() if started is None else started
        self.wire: Wire | None = None
        self._on_message = on_message
        self._on_end = on_end
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._pidfd = pidfd
        if pidfd >= 0:  # a wire that a forked process inherited does not end with the child
            self._loop.add_reader(pidfd, self._exited)

    @classmethod
    def start(
        cls, name: str, module: str, on_message: OnMessage, on_end: OnEnd, threads: int = 1, python: str = ""
    ) -> Child:
        """A new one, running a module in that interpreter, or in this one. Raises OSError."""
        ours, theirs = pair()
        with theirs:
            try:
                process = subprocess.Popen(
                    [python or sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    env=_environment(threads, python),
                    process_group=0,  # so that what a model forks ends with it
                )
            except BaseException:
                ours.close()
                raise
        pidfd = os.pidfd_open(process.pid) if sys.platform == "linux" else -1
        child = cls(name, process.pid, pidfd, on_message, on_end, process)
        child.join(Wire(ours))
        return child

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.pid}>"

    def join(self, wire: Wire) -> None:
        """Takes the wire to it; what it has said on that already is heard soon."""
        wire.sock.setblocking(False)
        self.wire = wire
        self._loop.add_reader(wire.fileno(), self._read)
        self._loop.call_soon(self._read)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Tells it something; a child that is gone is reported by `on_end`, not here."""
        if not self._ended and self.wire is not None:
            try:
                self.wire.send(message, fds)
            except OSError:
                self._loop.call_soon(self._end)

    def kill(self) -> None:
        """Ends it at once; `on_end` follows."""
        if self._process is None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()

    def _read(self) -> None:
        if self._ended or self.wire is None:
            return
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
        if self.wire is not None:
            self._loop.remove_reader(self.wire.fileno())
            self.wire.close()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
        self._reap(deadline=monotonic() + 1.0)

    def _reap(self, deadline: float) -> None:
        # The wire's end comes a moment before the process can be reaped.
        how = self._how()
        if not how:
            if monotonic() > deadline:
                self.kill()
                deadline = float("inf")
            self._loop.call_later(0.002, self._reap, deadline)
            return
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._on_end(self, how)

    def _how(self) -> str:
        """How it ended, "" while it has not."""
        if self._process is None:  # only its parent is told more
            return "how, only the controller before this one could tell" if has_ended(self._pidfd) else ""
        code = self._process.poll()
        if code is None:
            return ""
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _environment(threads: int, python: str) -> dict[str, str]:
    count = str(threads)
    environment = os.environ | {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    if python:  # another environment has packages of its own, and of ours only what a worker needs
        from turnout.deploy.environments.worker_path import worker_path

        environment = {k: v for k, v in environment.items() if k not in _NOT_THEIRS}
        environment["PYTHONPATH"] = str(worker_path())
    return environment
