"""What clients send in a stream: DATA to messages, the windows opened for them, the memory they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from turnout.core.errors import Failure, InvalidInput, TooLarge, Unsupported
from turnout.entrypoints.grpc.frames import (
    END_STREAM,
    PADDED,
    ConnectionFault,
    Data,
    ErrorCode,
    StreamFault,
    unpad,
    window_update,
)
from turnout.entrypoints.grpc.limits import MAX_WINDOW
from turnout.entrypoints.grpc.messages import PREFIX, MessageReader
from turnout.entrypoints.grpc.stream import Stream

if TYPE_CHECKING:
    from turnout.entrypoints.grpc.streams import Streams

#: A DATA frame below this that completes nothing is one that carries no work (bytes).
_TINY = 64
_PADDED_OR_END = PADDED | END_STREAM
#: What a complete message is worth in frames that carry no work.
_REFUND = 4


class Bodies:
    """The request bodies of one connection. `held` is what they take in memory (bytes)."""

    __slots__ = ("_limits", "_recv_left", "_stream_window", "_streams", "_window", "held")

    def __init__(self, streams: Streams) -> None:
        limits = streams.calls.limits
        self._streams = streams
        self._limits = limits
        self._window = limits.connection_window_bytes
        self._recv_left = self._window
        self._stream_window = limits.stream_window_bytes
        self.held = 0

    def data(self, flags: int, stream_id: int, payload: Data, rest: int = 0) -> None:
        """Takes a DATA frame or a piece of one, with `rest` bytes to come. Raises ConnectionFault or StreamFault.

        Only the last piece of a frame counts as a frame: in which pieces it arrives is not the peer's doing.
        """
        size = len(payload)
        stream = self._credit_connection(stream_id, size, rest)
        if stream is None:
            return
        stream.recv_left -= size
        if stream.recv_left < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream window")
        reader = stream.reader
        if reader is not None and not flags & _PADDED_OR_END and _TINY < size < reader.missing:
            reader.append(payload)  # somewhere in a large message: nothing else can happen
            stream.received += size
            if stream.recv_left < self._stream_window >> 1:
                self.credit(stream)
            return
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
                self._streams.overhead.refund(_REFUND)
                self._streams.calls.unary(stream, bytes(payload[PREFIX.size :]))
                return
        if size < _TINY and not end and not rest:
            self._streams.overhead.spend()
        self._assemble(stream, payload)
        if not stream.closed:
            self._after_data(stream, bool(end))

    def space(self, stream_id: int) -> memoryview | None:
        """Where DATA of a large message on that stream may be received directly."""
        stream = self._streams.open.get(stream_id)
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

    def _credit_connection(self, stream_id: int, size: int, rest: int = 0) -> Stream | None:
        left = self._recv_left - size
        if left < self._window >> 1:
            if left < 0:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection window")
            self._streams.out.put(window_update(0, self._window - left))
            left = self._window
        self._recv_left = left
        stream = self._streams.open.get(stream_id)
        if stream is not None and not stream.ended:
            return stream
        if stream_id > self._streams.last_id or not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA for a stream that was never opened")
        if stream_id not in self._streams.was_reset:
            raise StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream")
        if size < _TINY and not rest:
            self._streams.overhead.spend()
        return None

    def _assemble(self, stream: Stream, payload: Data) -> None:
        reader = stream.reader
        if reader is None:
            reader = stream.reader = MessageReader(self._limits.max_message_bytes)
        under_way = reader.midway
        try:
            messages = reader.feed(payload)
        except Failure as failure:
            self._streams.fail(stream, failure)
            return
        if messages or not under_way:
            stream.began = self._streams.calls.clock
        for flag, message in messages:
            self._message(stream, flag, message)

    def _after_data(self, stream: Stream, end: bool) -> None:
        wanted = stream.head.content_length
        if wanted >= 0 and (stream.received > wanted or (end and stream.received != wanted)):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "the DATA is not what content-length says")
        if not self.hold(stream):
            return
        if end:
            self.end(stream)
        else:
            self.credit(stream)

    def _message(self, stream: Stream, flag: int, message: Data) -> None:
        if stream.closed:
            return
        self._streams.overhead.refund(_REFUND)
        if stream.streaming:
            self._streams.calls.streamed(stream, flag, message)
        elif stream.message is None:
            stream.message, stream.compressed = message, bool(flag)
        else:
            self._streams.fail(stream, Unsupported("this method takes one message; more came"))

    def end(self, stream: Stream) -> None:
        """Takes the end of a stream, by DATA or by trailers. Raises StreamFault."""
        if 0 <= stream.head.content_length != stream.received:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "the DATA is not what content-length says")
        stream.ended = True
        if stream.reader is not None and stream.reader.midway:
            self._streams.fail(stream, InvalidInput("the request ended in the middle of a message"))
        else:
            self.complete(stream)

    def complete(self, stream: Stream) -> None:
        """The client has sent all of it: unary calls begin now."""
        if stream.streaming:
            self._streams.calls.half_closed(stream)
        elif stream.message is None:
            self._streams.fail(stream, Unsupported("this method takes one message; none came"))
        else:
            message, stream.message = stream.message, None
            self.hold(stream)
            if stream.compressed:
                self._streams.calls.compressed(stream, message)
            else:
                self._streams.calls.unary(stream, message)

    def hold(self, stream: Stream) -> bool:
        """Counts what the stream keeps in memory anew; False where it had to be ended for it."""
        held = stream.unread
        if stream.reader is not None and not stream.closed:
            held += stream.reader.held
        if stream.message is not None:
            held += len(stream.message)
        difference = held - stream.held
        if not difference:
            return True
        stream.held = held
        self.held += difference
        self._streams.calls.held += difference
        if difference > 0 and (
            self.held > self._limits.max_buffered_bytes
            or self._streams.calls.held > self._limits.max_total_buffered_bytes
        ):
            self._streams.fail(
                stream, TooLarge("too many bytes of messages are under way; send fewer at the same time")
            )
            return False
        return True

    def credit(self, stream: Stream) -> None:
        """Opens the stream's window again: for what is not waiting to be read, and for the message under way."""
        window = self._stream_window
        wanted = window - stream.unread
        least = window >> 1
        if stream.reader is not None and stream.reader.missing > stream.recv_left:
            wanted = max(wanted, stream.reader.missing)
            least = 1
        increment = min(wanted, MAX_WINDOW) - stream.recv_left
        if increment >= least and not stream.ended and not stream.closed:
            stream.recv_left += increment
            self._streams.out.put(window_update(stream.number, increment))
