"""The streams of one connection: header blocks, DATA, and what becomes of calls that go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from turnout.core.errors import Cancelled, DeadlineExceeded, Failure, InvalidInput, TooLarge, Unsupported
from turnout.entrypoints.grpc.answers import failure_block, plain_block
from turnout.entrypoints.grpc.flow import Outbound
from turnout.entrypoints.grpc.frames import (
    DATA,
    END_STREAM,
    PADDED,
    ConnectionFault,
    Data,
    ErrorCode,
    StreamFault,
    frame,
    rst_stream,
    unpad,
    window_update,
)
from turnout.entrypoints.grpc.header_blocks import Block, HeaderDecoder
from turnout.entrypoints.grpc.heads import Head, check_trailers, read_head
from turnout.entrypoints.grpc.limits import MAX_WINDOW
from turnout.entrypoints.grpc.messages import PREFIX, MessageReader, decompress
from turnout.entrypoints.grpc.stream import Stream

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.calls import Calls

#: How many streams that this side reset are remembered, so that frames still under way to them are ignored.
_REMEMBERED = 2_000
#: Bounds of the memory of equal header blocks: entries, and bytes of one block.
_MEMO_ENTRIES, _MEMO_BYTES = 32, 512
#: A DATA frame below this that completes nothing is one that carries no work (bytes).
_TINY = 64
#: What a complete message is worth in frames that carry no work.
_REFUND = 4


class Allowance:
    """What a peer may do that costs us and brings nothing: so much at once, and so much each second."""

    __slots__ = ("_burst", "_rate", "_text", "left")

    def __init__(self, burst: int, rate: int, text: str) -> None:
        self._burst = burst
        self._rate = rate
        self._text = text
        self.left = float(burst)

    def spend(self) -> None:
        """Takes one. Raises ConnectionFault (ENHANCE_YOUR_CALM) where nothing is left."""
        self.left -= 1
        if self.left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, self._text)

    def refund(self, count: float) -> None:
        """Gives some back."""
        if self.left < self._burst:
            self.left = min(self._burst, self.left + count)

    def wait(self, seconds: float) -> None:
        """Adds what that time is worth."""
        self.refund(seconds * self._rate)


class Streams:
    """The receiving half of one connection above frames."""

    def __init__(self, calls: Calls, out: Outbound, peer: str, finished: Callable[[], None]) -> None:
        limits = calls.limits
        self.calls = calls
        self.out = out
        self.peer = peer
        self.open: dict[int, Stream] = {}
        self.last_id = 0
        self.last_accepted = MAX_WINDOW
        self.held = 0
        self.control = Allowance(limits.control_burst, limits.control_rate, "too many frames that carry no work")
        self.resets = Allowance(limits.reset_burst, limits.reset_rate, "too many calls reset")
        self._limits = limits
        self._finished = finished
        self._decoder = HeaderDecoder(limits.max_header_list_bytes, limits.max_header_fields)
        self._memo: dict[bytes, Head] = {}
        self._reset: dict[int, None] = {}
        self._window = limits.connection_window_bytes
        self._recv_left = self._window
        self._stream_window = limits.stream_window_bytes
        self._max_streams = limits.max_streams

    # header blocks

    def headers(self, stream_id: int, data: bytes, end: bool) -> None:
        """Takes a complete header block. Raises ConnectionFault or StreamFault."""
        head = self._memo.get(data)
        if head is None or stream_id <= self.last_id:
            block = self._decoder.decode(data)  # also where the stream is gone: the table must follow
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
                self._complete(stream)

    def _later_block(self, stream_id: int, block: Block, end: bool) -> None:
        stream = self.open.get(stream_id)
        if stream is None:
            if stream_id not in self._reset:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS for a stream that is closed")
            self.control.spend()
        elif stream.ended:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream")
        elif not end:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream")
        else:
            check_trailers(block)
            self._end(stream)

    # DATA

    def data(self, flags: int, stream_id: int, payload: Data) -> None:
        """Takes a DATA frame or a piece of one. Raises ConnectionFault or StreamFault."""
        size = len(payload)
        stream = self._credit_connection(stream_id, size)
        if stream is None:
            return
        stream.recv_left -= size
        if stream.recv_left < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream window")
        if flags & PADDED:
            payload = unpad(payload)
            size = len(payload)
        stream.received += size
        end = flags & END_STREAM
        if end and size >= PREFIX.size and stream.reader is None and not stream.streaming:
            flag, length = PREFIX.unpack_from(payload)
            if (
                flag == 0
                and length == size - PREFIX.size
                and length <= self._limits.max_message_bytes
                and stream.head.content_length in (-1, size)
            ):
                stream.ended = True
                self.control.refund(_REFUND)
                self.calls.unary(stream, bytes(payload[PREFIX.size :]))
                return
        if size < _TINY and not end:
            self.control.spend()
        self._assemble(stream, payload)
        if not stream.closed:
            self._after_data(stream, bool(end))

    def space(self, stream_id: int) -> memoryview | None:
        """Where DATA of a large message on that stream may be received directly."""
        stream = self.open.get(stream_id)
        return None if stream is None or stream.reader is None else stream.reader.space()

    def placed(self, flags: int, stream_id: int, count: int) -> None:
        """Takes DATA that was received into `space`. Raises ConnectionFault or StreamFault."""
        stream = self._credit_connection(stream_id, count)
        if stream is None or stream.reader is None:
            return
        stream.recv_left -= count
        if stream.recv_left < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream window")
        stream.received += count
        for flag, message in stream.reader.placed(count):
            self._message(stream, flag, message)
        if not stream.closed:
            self._after_data(stream, bool(flags & END_STREAM))

    def _credit_connection(self, stream_id: int, size: int) -> Stream | None:
        left = self._recv_left - size
        if left < self._window >> 1:
            if left < 0:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection window")
            self.out.put(window_update(0, self._window - left))
            left = self._window
        self._recv_left = left
        stream = self.open.get(stream_id)
        if stream is not None and not stream.ended:
            return stream
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA for a stream that was never opened")
        if stream_id not in self._reset:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")
        if size < _TINY:
            self.control.spend()
        return None

    def _assemble(self, stream: Stream, payload: Data) -> None:
        reader = stream.reader
        if reader is None:
            reader = stream.reader = MessageReader(self._limits.max_message_bytes)
        under_way = reader.midway
        try:
            messages = reader.feed(payload)
        except Failure as failure:
            self.fail(stream, failure)
            return
        if messages or not under_way:
            stream.began = self.calls.clock
        for flag, message in messages:
            self._message(stream, flag, message)

    def _after_data(self, stream: Stream, end: bool) -> None:
        wanted = stream.head.content_length
        if wanted >= 0 and (stream.received > wanted or (end and stream.received != wanted)):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "the DATA is not what content-length says")
        if not self.hold(stream):
            return
        if end:
            self._end(stream)
        else:
            self.credit(stream)

    def _message(self, stream: Stream, flag: int, message: Data) -> None:
        if stream.closed:
            return
        self.control.refund(_REFUND)
        try:
            if flag:
                message = decompress(message, stream.head.encoding, self._limits.max_message_bytes)
            if stream.streaming:
                self.calls.streamed(stream, bytes(message))
            elif stream.message is None:
                stream.message = message
            else:
                raise Unsupported("this method takes one message; more came")
        except Failure as failure:
            self.fail(stream, failure)

    def _end(self, stream: Stream) -> None:
        if 0 <= stream.head.content_length != stream.received:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "the DATA is not what content-length says")
        stream.ended = True
        if stream.reader is not None and stream.reader.midway:
            self.fail(stream, InvalidInput("the request ended in the middle of a message"))
        else:
            self._complete(stream)

    def _complete(self, stream: Stream) -> None:
        if stream.streaming:
            self.calls.half_closed(stream)
        elif stream.message is None:
            self.fail(stream, Unsupported("this method takes one message; none came"))
        else:
            message, stream.message = stream.message, None
            self.hold(stream)
            self.calls.unary(stream, message)

    # memory and windows

    def hold(self, stream: Stream) -> bool:
        """Counts what the stream keeps in memory anew; False where it had to be ended for it."""
        held = stream.waiting
        if stream.reader is not None and not stream.closed:
            held += stream.reader.held
        if stream.message is not None:
            held += len(stream.message)
        difference = held - stream.held
        if not difference:
            return True
        stream.held = held
        self.held += difference
        self.calls.held += difference
        if difference > 0 and (
            self.held > self._limits.max_buffered_bytes or self.calls.held > self._limits.max_total_buffered_bytes
        ):
            self.fail(stream, TooLarge("too many bytes of messages are under way; send fewer at the same time"))
            return False
        return True

    def credit(self, stream: Stream) -> None:
        """Opens the stream's window again: for what is not waiting to be read, and for the message under way."""
        window = self._stream_window
        wanted = window - stream.waiting
        least = window >> 1
        if stream.reader is not None and stream.reader.missing > stream.recv_left:
            wanted = max(wanted, stream.reader.missing)
            least = 1
        increment = min(wanted, MAX_WINDOW) - stream.recv_left
        if increment >= least and not stream.ended and not stream.closed:
            stream.recv_left += increment
            self.out.put(window_update(stream.id, increment))

    # ends

    def fail(self, stream: Stream, failure: Failure) -> None:
        """Ends a call with a status: as trailers, or as a reset where a message is cut off in the middle."""
        if stream.closed:
            return
        if stream.work is not None:
            stream.work.stop(failure)
        if stream.out_left:
            self.reset(stream.id, ErrorCode.CANCEL)
        else:
            self.out.headers(stream, failure_block(failure, alone=not stream.started), end=True)
            self.answered(stream)

    def answered(self, stream: Stream) -> None:
        """The answer is complete. A client that still sends is told to stop."""
        if stream.ended:
            self._close(stream)
        else:
            self.reset(stream.id, ErrorCode.NO_ERROR)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream from this side, whatever its state."""
        self.out.put(rst_stream(stream_id, code))
        if len(self._reset) >= _REMEMBERED:
            del self._reset[next(iter(self._reset))]
        self._reset[stream_id] = None
        stream = self.open.get(stream_id)
        if stream is not None:
            self._close(stream)

    def peer_reset(self, stream_id: int) -> None:
        """Takes an RST_STREAM. Raises ConnectionFault where there was no such stream, or too many."""
        if stream_id > self.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM for a stream that was never opened")
        stream = self.open.get(stream_id)
        if stream is None:
            self.control.spend()
            return
        self._close(stream)
        self.resets.spend()

    def fault(self, stream_id: int, fault: StreamFault) -> None:
        """Ends the stream that broke a rule. Raises ConnectionFault where that happens too often."""
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
            self.reset(stream.id, ErrorCode.CANCEL)
            return
        self.out.window -= len(text)
        self.out.put(frame(DATA, END_STREAM, stream.id, text))
        self.answered(stream)

    def _close(self, stream: Stream) -> None:
        if self.open.pop(stream.id, None) is None:
            return
        stream.closed = True
        self.out.forget(stream)
        stream.message = None
        stream.waiting = 0
        self.hold(stream)
        if stream.work is not None:
            stream.work.stop(Cancelled("the caller went away"))
        self._finished()

    def sweep(self, now: float) -> None:
        """Ends streams that are too slow, in either direction."""
        limits = self._limits
        for stream in list(self.open.values()):
            reader = stream.reader
            if not stream.ended and (not stream.streaming or (reader is not None and reader.midway)):
                seconds = now - stream.began - limits.body_grace_seconds
                progress = reader.filled if reader is not None else 0
                if (seconds > 0 and progress < seconds * limits.min_body_rate) or now > stream.deadline:
                    self.fail(stream, DeadlineExceeded("the request's message came too slowly"))
            elif stream.out_left:
                self._sweep_stalled(stream, now)

    def _sweep_stalled(self, stream: Stream, now: float) -> None:
        limits = self._limits
        least, seconds = (1, limits.stream_stall_seconds) if stream.streaming else (
            int(limits.min_body_rate * limits.stall_seconds), limits.stall_seconds
        )  # fmt: skip
        if not stream.stalled_left:
            stream.stalled_left, stream.stalled_since = stream.out_left, now
        elif now - stream.stalled_since > seconds:
            if stream.stalled_left - stream.out_left < least:
                self.reset(stream.id, ErrorCode.CANCEL)
            else:
                stream.stalled_left, stream.stalled_since = stream.out_left, now
