"""One HTTP/2 stream: the state that receiving, answering and flow control share."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

from turnout.core.errors import Failure
from turnout.entrypoints.grpc.frames import Data
from turnout.entrypoints.grpc.heads import Head
from turnout.entrypoints.grpc.messages import MessageReader

if TYPE_CHECKING:
    from typing import Protocol

    from turnout.entrypoints.grpc.streams import Streams

    class Work(Protocol):
        """What runs for a stream and can be told to stop."""

        def stop(self, failure: Failure) -> None: ...
        def drained(self) -> None: ...


class Stream:
    """`number` is its identifier; `ended`: the client has sent all; `closed`: nothing more is sent or taken.

    `out` holds the parts of a message that flow control has not let out yet, `out_left` their bytes;
    `trailers` is the block that follows them, `told` what of the trailers says who answered. `began` is when the
    last message began to arrive, `deadline` when the client wants an answer at the latest (on the monotonic clock).
    `unread` are the bytes of messages that a streaming call has not taken yet.
    """

    __slots__ = (
        "began",
        "closed",
        "compressed",
        "deadline",
        "ended",
        "head",
        "held",
        "key",
        "message",
        "number",
        "out",
        "out_left",
        "reader",
        "received",
        "recv_left",
        "send_window",
        "stalled_left",
        "stalled_since",
        "started",
        "streaming",
        "table",
        "told",
        "trailers",
        "unread",
        "work",
    )

    def __init__(self, table: Streams, stream_id: int, head: Head, recv_window: int, send_window: int) -> None:
        self.table = table
        self.number = stream_id
        self.key = stream_id.to_bytes(4, "big")
        self.head = head
        self.recv_left = recv_window
        self.send_window = send_window
        self.received = 0
        self.reader: MessageReader | None = None
        self.message: Data | None = None
        self.compressed = False
        self.held = 0
        self.unread = 0
        self.ended = False
        self.closed = False
        self.started = False
        self.streaming = False
        self.work: Work | None = None
        self.out: deque[Data] | None = None
        self.out_left = 0
        self.trailers: bytes | None = None
        self.told = b""
        self.began = 0.0
        self.deadline = math.inf
        self.stalled_since = 0.0
        self.stalled_left = 0
