"""One client connection: requests are answered, and the answers leave in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import cast

from turnout.entrypoints.http.exchange import Exchange, turn_away
from turnout.entrypoints.http.head import Head
from turnout.entrypoints.http.progress import Progress, kernel_owes
from turnout.entrypoints.http.reading import Reading
from turnout.entrypoints.http.responses import refusal
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.http.syntax import Refusal


def _refused_head() -> Head:
    head = Head("", {})
    head.close = head.unread = True
    return head


_REFUSED = _refused_head()


class _Gone:
    """The line of an exchange that nobody waits for."""

    lost = True

    def __init__(self, peer: str) -> None:
        self.peer = peer

    def deliver(self, exchange: Exchange) -> None:
        """Nobody takes it."""

    def ends_with(self, exchange: Exchange) -> bool:
        """Nothing comes after it."""
        return True


class Connection(Reading):
    """Answers what is read, keeps the answers in order, and ends where its client is too slow or idle."""

    __slots__ = ("_discarded", "_gone", "_made", "_owed", "_since", "peer")

    def __init__(
        self, state: DoorState, made: Callable[[Connection], bool], gone: Callable[[Connection], None]
    ) -> None:
        super().__init__(state)
        self._made = made
        self._gone = gone
        self._owed: Progress | None = None
        self._since = 0.0
        self._discarded = 0
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
        if self._state.parking:
            self._look_back()
        if not self._made(self):
            self._refuse(Refusal(503, "the server has too many connections; try again in a second"))

    def eof_received(self) -> None:
        """The client sends no more. That is taken for leaving: nobody who waits for an answer does it."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._leave()
        self._gone(self)

    # Requests that are there.

    def _begin(self, head: Head, body: bytes | bytearray | memoryview, waited: float = 0.0) -> None:
        """One request is there as a whole."""
        state, now = self._state, monotonic()
        self._head_began = 0.0
        known = self._sent > 0.0
        if known:
            waited, self._sent = max(waited, now - self._sent), 0.0
        if head.codec is not None:
            left = head.deadline - waited if head.deadline_given else head.deadline
            if state.pace.too_late(now, left, known=known) and self._may_turn_away(head):
                answer = turn_away(state, head, self.peer, len(body), now, late=known)
                self._transport.write(answer)
                self._written += len(answer)
                self._park(now)
                return
        exchange = Exchange(state, self, head)
        self._pending.append(exchange)
        if head.close:
            self._ended = True
        exchange.answer(body, now, waited)

    def _may_turn_away(self, head: Head) -> bool:
        """Whether an answer may leave out of turn: none is owed before it, and the connection stays as it is."""
        return not (self._pending or head.close or head.keep_alive_field or head.head_only or self._state.draining)

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

    def settled(self) -> None:
        """The first answer has left by a lane: those behind it that are there follow."""
        if self._pending[0].parts is not None:
            self.deliver(self._pending[0])
        elif self._paused or self._continue_owed:
            self._invite()
            self._resume()

    def replace(self, item: object, exchange: Exchange) -> None:
        """An exchange takes the first place over from an item; where that has left it, nobody waits for an answer."""
        if self._pending and self._pending[0] is item:
            self._pending[0] = exchange
        else:
            exchange.line = _Gone(self.peer)

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
        if self._parked:
            self._state.parking.forget(self)
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
