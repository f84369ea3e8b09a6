"""The process that `turnout serve` is: it starts the controller, and another one at once when that dies.

It has no loop, no thread and no work: it waits. What must not be lost with a controller it keeps: the listening sockets
and the lock of the port. Processes whose parent has died become its own (Linux), so that it sees them end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from turnout.deploy.kept import Kept
from turnout.entrypoints.parent import end_with
from turnout.entrypoints.terminal import say
from turnout.runtime.wire import Message, Wire, pair

_PR_SET_CHILD_SUBREAPER = 36
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: The exit code of a controller that has broken, where it leaves what runs to the next one.
BROKEN = 70
#: Pauses before another one (seconds): none at first, then doubling; one that lived so long starts afresh.
_FIRST, _MOST, _FORGET = 0.05, 0.5, 2.0
#: How long orphans may take to finish what is in flight, when the controller that was to stop them has died (seconds).
_LAST_ORPHAN = 60.0

Run = Callable[[Kept], int]


def supervise(run: Run) -> int:
    """Runs a controller in a process of its own until one ends on purpose; gives its exit code.

    `run` runs in a fork of this process: there must be no thread yet. It finds the signals blocked that end it.
    """
    if sys.platform != "linux":
        return run(Kept())
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return Supervisor(run).serve()


class Supervisor:
    """Of one server. Only ever in the main thread."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._kept = Kept()
        self._signals, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told: list[int] = []
        self._ended: dict[int, int] = {}
        self._let_go = False

    def serve(self) -> int:
        """Until a controller ends on purpose, or is not to be had."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (*_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, _nothing)
        failures = 0
        while True:
            started = monotonic()
            status = self._watch(*self._fork())
            code = os.waitstatus_to_exitcode(status)
            if 0 <= code != BROKEN:
                return code
            if self._let_go:
                return self._after_all()
            failures = 1 if monotonic() - started > _FORGET else failures + 1
            delay = 0.0 if failures <= 1 else min(_MOST, _FIRST * 2.0 ** (failures - 2))
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "broke"
            say(f"the controller {how}; the models are served without it, and it is started again in {delay:.2f} s")
            self._pause(delay)
            self._kept.again = True
            self._kept.stopping = signal.SIGTERM in self._told or signal.SIGINT in self._told

    def _fork(self) -> tuple[int, Wire]:
        ours, theirs = pair()
        me = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: numpy's are made for this, and there is no other
            pid = os.fork()
        if pid == 0:
            code = BROKEN
            try:
                self._become_controller(me, ours)
                self._kept.wire = Wire(theirs)
                code = self._run(self._kept)
            except BaseException:  # noqa: BLE001  whatever it was, the next controller goes on
                traceback.print_exc()
            finally:
                with contextlib.suppress(OSError):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        theirs.close()
        return pid, Wire(ours)

    def _become_controller(self, parent: int, ours: socket.socket) -> None:
        """Lets go of what is the supervisor's. A Ctrl-C reaches that alone, and is passed on once."""
        signal.set_wakeup_fd(-1)
        for number in (*_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        ours.close()
        os.close(self._signals)
        os.close(self._wake)
        os.setpgid(0, 0)
        end_with(parent)

    def _watch(self, pid: int, wire: Wire) -> int:
        """Passes signals on, and keeps what is to be kept, until that process has ended; gives its status."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        poll.register(wire.fileno(), select.POLLIN)
        while (status := self._ended.pop(pid, None)) is None:
            for fd, _ in poll.poll():
                if fd == self._signals:
                    self._hear(pid)
                    continue
                try:
                    for message, fds in wire.poll():
                        self._obey(message, fds, wire)
                except EOFError:
                    poll.unregister(fd)
        with contextlib.suppress(EOFError):
            wire.sock.setblocking(False)
            for message, fds in wire.poll():  # what it said last
                self._obey(message, fds, wire)
        wire.close()
        return status

    def _hear(self, pid: int) -> None:
        """Signals that have come: passed on to that process, if there is one."""
        for number in _read(self._signals):
            if number in _PASSED_ON:
                self._told.append(number)
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
        self._reap()

    def _reap(self) -> bool:
        """Takes note of all that have ended; False when there are no children at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._ended = {**self._ended, pid: status} if len(self._ended) < 8 else {pid: status}

    def _obey(self, message: Message, fds: list[int], wire: Wire) -> None:
        match message["op"]:
            case "keep":
                if message["first"]:
                    self._close_doors()
                http, grpc = message["ports"]
                self._kept.ports = (http, grpc)
                self._kept.sockets += [socket.socket(fileno=fd) for fd in fds]
            case "lock":
                if self._kept.lock >= 0:
                    os.close(self._kept.lock)
                (self._kept.lock,) = fds
            case "let_go":
                self._let_go = True
                self._close_doors()
                if self._kept.lock >= 0:
                    os.close(self._kept.lock)
                    self._kept.lock = -1
                with contextlib.suppress(OSError):
                    wire.send({"op": "gone"})

    def _close_doors(self) -> None:
        for sock in self._kept.sockets:
            sock.close()
        self._kept.sockets = []

    def _pause(self, seconds: float) -> None:
        """Waits so long, but not once it was told to stop."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0 and not {signal.SIGTERM, signal.SIGINT} & set(self._told):
            poll = select.poll()
            poll.register(self._signals, select.POLLIN)
            poll.poll(left * 1000.0)
            self._hear(0)

    def _after_all(self) -> int:
        """The controller has died while it stopped everything: what it has told so ends by itself, or is killed."""
        say("the controller has died and is not started again; what is in flight is still answered")
        told = len(self._told)
        until = monotonic() + _LAST_ORPHAN
        while self._reap() and monotonic() < until and len(self._told) == told:
            poll = select.poll()
            poll.register(self._signals, select.POLLIN)
            poll.poll(100.0)
            self._hear(0)
        for pid in _children(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return 1


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 4096)
    except BlockingIOError:
        return b""


def _nothing(_number: int, _frame: object) -> None:
    """The number of the signal goes into a pipe; that is all that is needed."""


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent and fields[0] != "Z":
                    found.append(int(entry.name))
    return found
