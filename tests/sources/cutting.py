"""A proxy that breaks connections: it passes bytes on, and hangs up after so many of an answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Listens on 127.0.0.1 and passes on to `target` (a port). cuts: how many bytes of the answers of the next
    connections to let through, one number each; once they are used up, everything passes.

    seen: the first line of every request, with its Range field if there is one.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.cuts: list[int] = []
        self.seen: list[str] = []
        self.port = 0
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """Listens, at the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuses connections from now on."""
        if self._listener:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # or the thread would go on waiting, and the port listen
            self._listener.close()
            self._listener = None

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (chunk := client.recv(1 << 16)):
                    return
                head += chunk
            lines = head.decode("latin-1").split("\r\n")
            ranges = [line for line in lines if line.lower().startswith("range:")]
            self.seen.append(" ".join([lines[0], *ranges]))
            is_file = any(word in lines[0] for word in ("/blobs/", "/resolve/", "-artifacts/artifacts/"))
            left = self.cuts.pop(0) if self.cuts and is_file else None
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                server.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                while chunk := server.recv(1 << 16):
                    chunk = chunk if left is None else chunk[:left]
                    client.sendall(chunk)
                    if left is not None:
                        left -= len(chunk)
                        if left <= 0:
                            return
