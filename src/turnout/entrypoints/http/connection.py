"""One client connection: bytes become requests in order, answers leave in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import cast

from turnout.entrypoints.http.exchange import Exchange, turn_away
from turnout.entrypoints.http.head import Head
from turnout.entrypoints.http.progress import Progress, kernel_owes
from turnout.entrypoints.http.responses import refusal
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.http.syntax import Refusal, first_fault
from turnout.entrypoints.http.upload import RoomReader, Upload

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: A body of this size or more that came whole is passed on as a view of what was received.
_VIEW_BYTES = 16 * 1024


def _refused_head() -> Head:
    head = Head("", {})
    head.close = head.unread = True
    return head


_REFUSED = _refused_head()


class Connection(asyncio.Protocol):
    """Reads requests, keeps their answers in order, and stops reading while it owes too much.

    `held` is what has been received and not yet read: the start of a head, or requests beyond the bound.
    `ended` says that what still comes is no request any more and is thrown away.
    """

    __slots__ = (
        "_choked", "_continue_owed", "_discarded", "_ended", "_gone", "_head_began", "_held", "_made", "_owed",
        "_paused", "_pending", "_reading", "_since", "_state", "_transport", "_upload", "_used", "_written",
        "lost", "peer",
    )  # fmt: skip

    def __init__(
        self, state: DoorState, made: Callable[[Connection], bool], gone: Callable[[Connection], None]
    ) -> None:
        self._state = state
        self._made = made
        self._gone = gone
        self._pending: deque[Exchange] = deque()
        self._held = b""
        self._upload: Upload | None = None
        self._owed: Progress | None = None
        self._since = self._head_began = 0.0
        self._written = self._discarded = 0
        self._choked = self._paused = self._reading = self._ended = self._used = self._continue_owed = False
        self.lost = False
        self.peer = ""

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected. Until it has sent something, its time for a head runs."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._state.limits.write_buffer_bytes)
        self._since = self._head_began = monotonic()
        self._state.pace.touch(self._since)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._made(self):
            self._refuse(Refusal(503, "the server has too many connections; try again in a second"))

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self._read(self._held + data if self._held else data)

    def room_filled(self, size: int) -> None:
        """Some bytes of a long body have come to where they belong."""
        upload = cast("Upload", self._upload)
        try:
            upload.filled(size)
        except Refusal as fault:
            self._switch(self)
            self._refuse(fault)
            return
        if upload.body.complete:
            self._switch(self)
            self._uploaded(upload)

    def eof_received(self) -> None:
        """The client sends no more. That is taken for leaving: nobody who waits for an answer does it."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._leave()
        self._gone(self)

    def pause_writing(self) -> None:
        """The client takes too little of its answers."""
        self._choked = True
        self._pause()

    def resume_writing(self) -> None:
        """The client has taken most of what it was owed."""
        self._choked = False
        self._resume()

    # Requests in.

    def _read(self, data: bytes) -> None:
        """Reads requests until the data is used up or the connection has enough to do."""
        self._reading = True
        self._used = True
        state = self._state
        pending = self._pending
        most = state.limits.pipelined
        at, size, begun = 0, len(data), 0
        try:
            while at < size:
                if self._ended:
                    self._discard(size - at)
                    at = size
                elif self._upload is not None:
                    at = self._feed(self._upload, data, at)
                elif self._choked or len(pending) >= most or begun >= most:
                    self._wait_with(data[at:], soon=begun >= most)
                    return
                else:
                    end = data.find(b"\r\n\r\n", at) + 4
                    if end < 4:
                        self._wait_for_head(data[at:])
                        return
                    head = state.heads.read(data[at:end])
                    begun += 1
                    at = end + head.length
                    if head.length < 0 or at > size or head.unread:
                        at = end
                        self._start_upload(head, there=at < size)
                    elif head.length < _VIEW_BYTES:
                        self._begin(head, data[end:at])
                    else:
                        self._begin(head, memoryview(data)[end:at])
            self._held = b""
        except Refusal as fault:
            self._refuse(fault)
        finally:
            self._reading = False

    def _begin(self, head: Head, body: bytes | bytearray | memoryview, waited: float = 0.0) -> None:
        """One request is there as a whole."""
        state, now = self._state, monotonic()
        if head.codec is not None and state.pace.too_late(now, head.deadline) and self._may_turn_away(head):
            answer = turn_away(state, head, self.peer, len(body), now)
            self._transport.write(answer)
            self._written += len(answer)
            return
        exchange = Exchange(state, self, head)
        self._pending.append(exchange)
        self._head_began = 0.0
        if head.close:
            self._ended = True
        exchange.answer(body, now, waited)

    def _may_turn_away(self, head: Head) -> bool:
        """Whether an answer may leave out of turn: none is owed before it, and the connection stays as it is."""
        return not (self._pending or head.close or head.keep_alive_field or head.head_only or self._state.draining)

    def _wait_for_head(self, start: bytes) -> None:
        """Keeps the start of a head, unless it is already wrong."""
        if b"\n" in start or len(start) >= self._state.heads.bounds.head_bytes:
            fault = first_fault(start, self._state.heads.bounds)
            if fault is not None:
                raise fault
        if not self._held or not self._head_began:
            self._head_began = monotonic()
        self._held = start

    def _wait_with(self, rest: bytes, *, soon: bool) -> None:
        """Keeps further requests until some are answered, or until other connections have had their turn."""
        self._held = rest
        self._head_began = 0.0
        self._pause()
        if soon:
            asyncio.get_running_loop().call_soon(self._resume)

    def _start_upload(self, head: Head, *, there: bool) -> None:
        """The head is there and the body is not, or will not be waited for."""
        if head.unread:
            self._begin(head, b"")
            return
        self._head_began = 0.0
        self._upload = Upload(self._state, head)
        if head.expects and not there:
            self._continue_owed = True
            self._invite()

    def _invite(self) -> None:
        """Tells the client to go on with its body, once it has all earlier answers."""
        if self._continue_owed and not self._pending:
            self._continue_owed = False
            if self._upload is not None and not self._upload.body.received:
                self._transport.write(_CONTINUE)
                self._written += len(_CONTINUE)

    def _feed(self, upload: Upload, data: bytes, at: int) -> int:
        at = upload.feed(data, at)
        if upload.body.complete:
            self._uploaded(upload)
        elif (body := upload.reserve()) is not None:
            self._switch(RoomReader(self, body))
        return at

    def _uploaded(self, upload: Upload) -> None:
        self._upload = None
        self._continue_owed = False
        upload.close()
        self._begin(upload.head, upload.body.content, monotonic() - upload.began)

    def _switch(self, protocol: asyncio.BaseProtocol) -> None:
        """Changes who is told of bytes. Reading starts anew, because the transport chooses its way of reading then."""
        self._transport.set_protocol(protocol)
        if not self._paused:
            self._transport.pause_reading()
            self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused and not self._ended:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        """Reads on, if nothing stands against it any more."""
        if not self._paused or self._reading or self._choked or self.lost:
            return
        if self._held and len(self._pending) > self._state.limits.pipelined // 2:
            return
        self._paused = False
        self._transport.resume_reading()
        if self._held:
            self._read(self._held)

    # Answers out.

    def deliver(self, exchange: Exchange) -> None:
        """Sends an answer and those that waited for it, in the order of their requests."""
        pending = self._pending
        if pending[0] is not exchange:
            return
        while True:
            pending.popleft()
            parts = exchange.parts
            if isinstance(parts, bytes):
                self._transport.write(parts)
            else:
                self._transport.writelines(cast("list[bytes | memoryview]", parts))
            self._written += exchange.size
            if exchange.close:
                self._end(exchange.head)
                return
            if not pending or pending[0].parts is None:
                break
            exchange = pending[0]
        self._used = True
        if self._paused or self._continue_owed:
            self._invite()
            self._resume()

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether nothing is known that comes after this exchange."""
        return self._pending[-1] is exchange and not self._held and self._upload is None

    def _refuse(self, fault: Refusal) -> None:
        """Answers what is no request, after the answers before it, and reads no more."""
        self._drop()
        self._ended = True
        exchange = Exchange(self._state, self, _REFUSED)
        self._pending.append(exchange)
        fields = (("Retry-After", "1"),) if fault.status == 503 else ()
        exchange.refuse(refusal(fault.status, fault.message, fields))

    def _end(self, head: Head) -> None:
        """The last answer is on its way. Where more may come, it is read for a while: closing at once would reset
        the connection, and the client might never see the answer.
        """
        self._ended = True
        self._cancel_all()
        if not head.unread and not self._discarded and not self._held:
            self._transport.close()
            return
        self._held = b""
        self._since = monotonic()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._state.limits.linger_bytes:
            self._transport.abort()

    def _drop(self) -> None:
        self._held = b""
        self._head_began = 0.0
        self._continue_owed = False
        if self._upload is not None:
            self._upload.close()
            self._upload = None

    def _cancel_all(self) -> None:
        while self._pending:
            self._pending.popleft().abandon()

    def _leave(self) -> None:
        self.lost = self._ended = True
        self._drop()
        self._cancel_all()

    def abort(self) -> None:
        """Ends the connection at once, whatever it is owed."""
        self._transport.abort()

    # Time.

    def check(self, now: float, idle_seconds: float) -> None:
        """Ends the connection where its client is too slow, or where nothing has happened on it for `idle_seconds`."""
        limits = self._state.limits
        unsent = self._transport.get_write_buffer_size()
        if unsent and self._takes_nothing(now, self._written - unsent - kernel_owes(self._transport)):
            self._transport.abort()
            return
        if not unsent:
            self._owed = None
        if self._used:
            self._used = False
            self._since = now
        if self._upload is not None:
            if self._upload.stalled(now, paused=self._paused or self._continue_owed):
                self._switch(self)
                self._refuse(Refusal(408, "the request body came too slowly"))
        elif self._pending or unsent:
            pass
        elif self._ended:
            if now - self._since > limits.linger_seconds:
                self._transport.abort()
        elif self._head_began:
            if now - self._head_began > limits.header_seconds:
                if self._held:
                    self._refuse(Refusal(408, "the request head took too long"))
                else:  # it has never sent anything, so it waits for nothing
                    self._transport.close()
        elif now - self._since > idle_seconds:
            self._transport.close()

    def _takes_nothing(self, now: float, taken: int) -> bool:
        if self._owed is None:
            limits = self._state.limits
            self._owed = Progress(now, taken, limits.write_window_seconds, limits.write_bytes_per_second)
            return False
        return self._owed.stalled(now, taken)
