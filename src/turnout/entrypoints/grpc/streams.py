"""The streams of one connection: how they open, how they end, and when they are too slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from turnout.core.errors import Cancelled, DeadlineExceeded, Failure
from turnout.entrypoints.grpc.allowance import Allowance
from turnout.entrypoints.grpc.answers import failure_block, plain_block
from turnout.entrypoints.grpc.bodies import Bodies
from turnout.entrypoints.grpc.flow import Outbound
from turnout.entrypoints.grpc.frames import (
    DATA,
    END_STREAM,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame,
    rst_stream,
)
from turnout.entrypoints.grpc.header_blocks import Block, HeaderDecoder
from turnout.entrypoints.grpc.heads import Head, check_trailers, read_head
from turnout.entrypoints.grpc.limits import MAX_WINDOW
from turnout.entrypoints.grpc.stream import Stream

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.calls import Calls

#: How many streams that this side reset are remembered, so that frames still under way to them are ignored.
_REMEMBERED = 2_000
#: Bounds of the memory of equal header blocks: entries, and bytes of one block.
_MEMO_ENTRIES, _MEMO_BYTES = 32, 512
#: Header blocks above this count as frames that carry no work, one for each such number of bytes.
_LARGE_BLOCK = 1024


class Streams:
    """The streams that are open, by their identifiers, and what is left of those that were reset from this side.

    `last_id` is the highest identifier seen, `last_accepted` the highest one that is still answered.
    """

    def __init__(self, calls: Calls, out: Outbound, peer: str, finished: Callable[[], None]) -> None:
        limits = calls.limits
        self.calls = calls
        self.out = out
        self.peer = peer
        self.open: dict[int, Stream] = {}
        self.last_id = 0
        self.last_accepted = MAX_WINDOW
        self.overhead = Allowance(limits.overhead_burst, limits.overhead_rate, "too many frames that carry no work")
        self.resets = Allowance(limits.reset_burst, limits.reset_rate, "too many calls reset")
        self._limits = limits
        self._finished = finished
        self._decoder = HeaderDecoder(limits.max_header_list_bytes, limits.max_header_fields)
        self._memo: dict[bytes, Head] = {}
        self.was_reset: dict[int, None] = {}
        self._stream_window = limits.stream_window_bytes
        self._max_streams = limits.max_streams
        self.bodies = Bodies(self)

    # header blocks

    def headers(self, stream_id: int, data: bytes, end: bool) -> None:
        """Takes a complete header block. Raises ConnectionFault or StreamFault."""
        head = self._memo.get(data)
        if head is None or stream_id <= self.last_id:
            block = self._decoder.decode(data)  # also where the stream is gone: the table must follow
            if len(data) > _LARGE_BLOCK:
                self.overhead.spend(len(data) / _LARGE_BLOCK)
            if self._decoder.changed:
                self._memo.clear()
            if stream_id <= self.last_id:
                self._later_block(stream_id, block, end)
                return
            self._new_id(stream_id)
            head = read_head(block, self.calls.methods)
            if not self._decoder.changed and len(data) <= _MEMO_BYTES:
                if len(self._memo) >= _MEMO_ENTRIES:
                    self._memo.clear()
                self._memo[data] = head
        else:
            self._new_id(stream_id)
        if stream_id > self.last_accepted:
            self.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if len(self.open) >= self._max_streams:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "no more streams at this moment")
        self._open(stream_id, head, end)

    def _new_id(self, stream_id: int) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients open streams with odd identifiers")
        self.last_id = stream_id

    def _open(self, stream_id: int, head: Head, end: bool) -> None:
        stream = Stream(self, stream_id, head, self._stream_window, self.out.initial_window)
        self.open[stream_id] = stream
        stream.ended = end
        if head.status:
            self._plain(stream)
        elif head.failure is not None:
            self.fail(stream, head.failure)
        elif end and head.content_length > 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "a content length, but no content")
        else:
            self.calls.opened(stream)
            if not end:
                stream.began = self.calls.clock
            elif not stream.closed:
                self.bodies.complete(stream)

    def _later_block(self, stream_id: int, block: Block, end: bool) -> None:
        stream = self.open.get(stream_id)
        if stream is None:
            if stream_id not in self.was_reset:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS for a stream that is closed")
            self.overhead.spend()
        elif stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
        elif not end:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
        else:
            check_trailers(block)
            self.bodies.end(stream)

    # ends

    def fail(self, stream: Stream, failure: Failure) -> None:
        """Ends a call with a status: as trailers, or as a reset where a message is cut off in the middle."""
        if stream.closed:
            return
        if stream.work is not None:
            stream.work.stop(failure)
        if stream.out_left:
            self.reset(stream.number, ErrorCode.CANCEL)
        else:
            self.out.headers(stream, failure_block(failure, alone=not stream.started) + stream.told, end=True)
            self.answered(stream)

    def answered(self, stream: Stream) -> None:
        """The answer is complete. A client that still sends is told to stop."""
        if stream.ended:
            self._close(stream)
        else:
            self.reset(stream.number, ErrorCode.NO_ERROR)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream from this side, whatever its state."""
        self.out.put(rst_stream(stream_id, code))
        if len(self.was_reset) >= _REMEMBERED:
            del self.was_reset[next(iter(self.was_reset))]
        self.was_reset[stream_id] = None
        stream = self.open.get(stream_id)
        if stream is not None:
            self._close(stream)

    def peer_reset(self, stream_id: int) -> None:
        """Takes an RST_STREAM. Raises ConnectionFault where there was no such stream, or too many."""
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM for a stream that was never opened")
        stream = self.open.get(stream_id)
        if stream is None:
            self.overhead.spend()
            return
        self._close(stream)
        self.resets.spend()

    def fault(self, stream_id: int, fault: StreamFault) -> None:
        """Ends the stream that broke a rule. Raises ConnectionFault where there was none, or too often."""
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(fault.code, str(fault))
        self.reset(stream_id, fault.code)
        self.resets.spend()

    def abandon(self) -> None:
        """The connection is gone: ends everything that runs for it."""
        for stream in list(self.open.values()):
            self._close(stream)

    def _plain(self, stream: Stream) -> None:
        text = stream.head.reason.encode() + b"\n"
        self.out.headers(stream, plain_block(stream.head.status, len(text)))
        if min(self.out.window, stream.send_window) < len(text):
            self.reset(stream.number, ErrorCode.CANCEL)
            return
        self.out.window -= len(text)
        self.out.put(frame(DATA, END_STREAM, stream.number, text))
        self.answered(stream)

    def _close(self, stream: Stream) -> None:
        if self.open.pop(stream.number, None) is None:
            return
        stream.closed = True
        self.out.forget(stream)
        stream.message = None
        stream.unread = 0
        self.bodies.hold(stream)
        if stream.work is not None:
            stream.work.stop(Cancelled("the caller went away"))
        self._finished()

    def sweep(self, now: float) -> bool:
        """Ends streams that are too slow, in either direction; True where no other stream is left then."""
        limits = self._limits
        late = False
        for stream in list(self.open.values()):
            reader = stream.reader
            if not stream.ended and (not stream.streaming or (reader is not None and reader.midway)):
                seconds = now - stream.began - limits.body_grace_seconds
                progress = reader.filled if reader is not None else 0
                if (seconds > 0 and progress < seconds * limits.min_body_rate) or now > stream.deadline:
                    self.fail(stream, DeadlineExceeded("the request's message came too slowly"))
                    late = True
            elif stream.out_left:
                self._sweep_stalled(stream, now)
        return late and not self.open

    def _sweep_stalled(self, stream: Stream, now: float) -> None:
        limits = self._limits
        least, seconds = (1, limits.stream_stall_seconds) if stream.streaming else (
            int(limits.min_body_rate * limits.stall_seconds), limits.stall_seconds
        )  # fmt: skip
        if not stream.stalled_left:
            stream.stalled_left, stream.stalled_since = stream.out_left, now
        elif now - stream.stalled_since > seconds:
            if stream.stalled_left - stream.out_left < least:
                self.reset(stream.number, ErrorCode.CANCEL)
            else:
                stream.stalled_left, stream.stalled_since = stream.out_left, now
