"""A client that speaks frames: it sends whatever it is told, and reads the answers with hyperframe and hpack."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import hpack
from grpc_door import ECHO
from hyperframe import frame as hf

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Fields = Sequence[tuple[str, str]]


def fields(path: str = ECHO, **changes: str | None) -> list[tuple[str, str]]:
    """The headers of a call; changes by name (`_` for `-`, `p_` for `:`), None to leave one out."""
    wanted = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changes.items():
        key = ":" + name[2:] if name.startswith("p_") else name.replace("_", "-")
        if value is None:
            wanted.pop(key, None)
        else:
            wanted[key] = value
    return list(wanted.items())


def block(headers: Fields) -> bytes:
    """Literal fields that touch no table."""
    out = b""
    for name, value in headers:
        for text in (name, value):
            raw = text.encode("latin-1")
            size = hpack.hpack.encode_integer(len(raw), 7)
            out += (b"\x00" if text is name else b"") + bytes(size) + raw
    return out


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream_id) + payload


def headers(stream_id: int, data: bytes | None = None, *, end: bool = False, flags: int = 4) -> bytes:
    return frame(1, flags | end, stream_id, block(fields()) if data is None else data)


def data(stream_id: int, payload: bytes, *, end: bool = False) -> bytes:
    return frame(0, int(end), stream_id, payload)


def message(body: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(body)) + body


def call(stream_id: int, body: bytes = b"hello", headers_: Fields | None = None) -> bytes:
    """A whole unary call."""
    return headers(stream_id, block(fields() if headers_ is None else headers_)) + data(
        stream_id, message(body), end=True
    )


class Wire:
    """One connection. Reading ends with None where the server closed it."""

    def __init__(self, port: int, *, greet: bool = True, settings: dict[int, int] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = hpack.Decoder()
        self.buffer = b""
        if greet:
            payload = b"".join(struct.pack(">HI", *item) for item in (settings or {}).items())
            self.send(PREFACE + frame(4, 0, 0, payload))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends, and does not mind where the server has closed already."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.socket.sendall(data)

    def read(self) -> hf.Frame | None:
        """The next frame; HEADERS get `fields`."""
        if not self._fill(9):
            return None
        parsed, length = hf.Frame.parse_frame_header(memoryview(self.buffer[:9]))
        if not self._fill(9 + length):
            return None
        parsed.parse_body(memoryview(self.buffer[9 : 9 + length]))
        self.buffer = self.buffer[9 + length :]
        if isinstance(parsed, hf.HeadersFrame):
            parsed.fields = dict(self.decoder.decode(parsed.data))
        return parsed

    def _fill(self, count: int) -> bool:
        while len(self.buffer) < count:
            try:
                got = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return False
            if not got:
                return False
            self.buffer += got
        return True

    def until(self, wanted: Callable[[hf.Frame], bool]) -> list[hf.Frame]:
        """Every frame up to the wanted one. Fails where the connection ends first."""
        seen: list[hf.Frame] = []
        while True:
            got = self.read()
            assert got is not None, f"closed after {seen}"
            seen.append(got)
            if wanted(got):
                return seen

    def rest(self) -> list[hf.Frame]:
        """Every frame until the server closes."""
        seen: list[hf.Frame] = []
        while (got := self.read()) is not None:
            seen.append(got)
        return seen

    def answer(self, stream_id: int) -> tuple[bytes, dict[str, str]]:
        """The DATA and the last headers of a stream that the server answers whole."""
        seen = [f for f in self.until(lambda f: ended(f, stream_id)) if f.stream_id == stream_id]
        last = seen[-1]
        if isinstance(last, hf.RstStreamFrame):
            return b"", {"reset": str(last.error_code)}
        body = b"".join(f.data for f in seen if isinstance(f, hf.DataFrame))
        return body, getattr(last, "fields", {})

    def alive(self) -> bool:
        """Whether the connection still answers."""
        self.send(frame(6, 0, 0, b"alive???"))
        while (got := self.read()) is not None:
            if isinstance(got, hf.PingFrame) and got.opaque_data == b"alive???":
                return True
            if isinstance(got, hf.GoAwayFrame):
                return False
        return False


def ended(got: hf.Frame, stream_id: int) -> bool:
    return got.stream_id == stream_id and (isinstance(got, hf.RstStreamFrame) or "END_STREAM" in got.flags)


def outcome(wire: Wire, stream_id: int = 1) -> str:
    """How the server took something wrong: the end of the connection, a reset, a status, or nothing at all."""
    wire.send(frame(6, 0, 0, b"outcome?"))
    found = "nothing"
    while (got := wire.read()) is not None:
        if isinstance(got, hf.GoAwayFrame):
            return f"connection {got.error_code}"
        if isinstance(got, hf.RstStreamFrame) and found == "nothing":
            found = f"stream {got.error_code}"
        elif isinstance(got, hf.HeadersFrame) and got.stream_id == stream_id and "END_STREAM" in got.flags:
            found = f"status {got.fields.get('grpc-status', got.fields.get(':status'))}"
        elif isinstance(got, hf.HeadersFrame) and got.fields.get(":status", "200") != "200":
            found = f"http {got.fields[':status']}"
        elif isinstance(got, hf.PingFrame) and got.opaque_data == b"outcome?":
            return found
    return "closed"
