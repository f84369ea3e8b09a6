"""A door that really runs, in a thread of its own on uvloop, and a plain socket client."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop
from tiny import Kept, TinyProtocol, TinyServing

from turnout.entrypoints.http import HttpDoor, HttpLimits

T = TypeVar("T")
PATIENCE = 10.0


class Running:
    """A door on a free port of 127.0.0.1, with everything behind it at hand."""

    def __init__(self, limits: HttpLimits | None = None, default_deadline: float = 30.0, *, uv: bool = True) -> None:
        self.serving = TinyServing()
        self.observer = Kept()
        self.protocol = TinyProtocol()
        self._limits = limits
        self._default_deadline = default_deadline
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop() if uv else asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.door, self.port = self.run(self._open())

    async def _open(self) -> tuple[HttpDoor, int]:
        door = HttpDoor(self.serving, [self.protocol], self.observer, self._limits, self._default_deadline)
        return door, await door.start("127.0.0.1", 0)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the door's loop and returns what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the door's loop."""

        async def calling() -> T:
            return function()

        return self.run(calling())

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds on the door's loop. Fails where it does not in time."""

        async def waiting() -> None:
            end = monotonic() + PATIENCE / 2
            while not condition():
                assert monotonic() < end, "the condition never held"
                await asyncio.sleep(0.002)

        self.run(waiting())

    def release(self, key: str) -> None:
        """Lets the model `held` answer the request with that key, once it has come."""
        self.until(lambda: key in self.serving.held.waiting)
        self.call(lambda: self.serving.held.waiting[key].set_result(None))

    def connect(self, timeout: float = PATIENCE) -> Client:
        """A new connection."""
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout=timeout))

    def ask(self, raw: bytes) -> Reply:
        """Sends bytes on a new connection and reads one answer."""
        with self.connect() as client:
            client.send(raw)
            return client.reply(head_only=raw.startswith(b"HEAD"))

    def close(self) -> None:
        """Ends the door and its thread."""
        self.run(self.door.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Reply:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """A socket that reads answers strictly, by their content-length."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._left = b""

    def send(self, raw: bytes) -> None:
        self.sock.sendall(raw)

    def reply(self, *, head_only: bool = False) -> Reply:
        """The next answer; interim ones are noted on it."""
        interim: list[int] = []
        while True:
            while b"\r\n\r\n" not in self._left:
                self._more()
            head, _, self._left = self._left.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            version, status, _reason = first.split(" ", 2)
            assert version == "HTTP/1.1"
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            if int(status) >= 200:
                break
            interim.append(int(status))
        length = 0 if head_only else int(headers["content-length"])
        while len(self._left) < length:
            self._more()
        body, self._left = self._left[:length], self._left[length:]
        return Reply(int(status), headers, body, interim)

    def head(self) -> bytes:
        """The next head, as it came: an interim answer is nothing else."""
        while b"\r\n\r\n" not in self._left:
            self._more()
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        return head

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError(f"the connection ended with {self._left[:200]!r} unread")
        self._left += data

    def ended(self) -> bool:
        """Waits for the end of the connection; whether nothing came before it."""
        try:
            return not self._left and self.sock.recv(1 << 16) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def post(
    path: str, body: bytes | dict[str, Any] = b"", *, headers: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """The bytes of one POST with a stated length."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "test", "Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode("latin-1") + data


def get(path: str, *, method: str = "GET", headers: dict[str, str] | None = None, version: str = "1.1") -> bytes:
    """The bytes of one request without a body."""
    fields = {"Host": "test", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/{version}\r\n{lines}\r\n".encode("latin-1")


def chunked(path: str, chunks: bytes, *, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of one POST whose chunks are given as they are."""
    fields = {"Host": "test", "Content-Type": "application/json", "Transfer-Encoding": "chunked", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + chunks
