"""The way in of one client connection: bytes become whole requests, as many as there is room for."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from time import monotonic
from typing import cast

from turnout.entrypoints.http.exchange import Exchange
from turnout.entrypoints.http.head import Head
from turnout.entrypoints.http.lane import take
from turnout.entrypoints.http.parking import unread
from turnout.entrypoints.http.state import DoorState
from turnout.entrypoints.http.syntax import Refusal, first_fault
from turnout.entrypoints.http.upload import RoomReader, Upload

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: A body of this size or more that came whole is passed on as a view of what was received.
_VIEW_BYTES = 16 * 1024


class Reading(asyncio.Protocol):
    """Reads requests, and stops reading while the connection owes too much or has been turned away.

    `held` is what has been received and not yet read: the start of a head, or requests beyond the bound.
    `ended` says that what still comes is no request any more and is thrown away. `sent` is when a request that is
    read next came to the kernel, where that was asked (monotonic seconds, else 0).
    """

    __slots__ = (
        "_choked", "_continue_owed", "_ended", "_head_began", "_held", "_parked", "_paused", "_pending", "_reading",
        "_sent", "_state", "_transport", "_upload", "_used", "_written", "lost",
    )  # fmt: skip

    def __init__(self, state: DoorState) -> None:
        self._state = state
        self._transport: asyncio.Transport
        self._pending: deque[Exchange] = deque()
        self._held = b""
        self._upload: Upload | None = None
        self._head_began = self._sent = 0.0
        self._written = 0
        self._choked = self._parked = self._paused = self._reading = False
        self._ended = self._used = self._continue_owed = self.lost = False

    @abstractmethod
    def eof_received(self) -> None:
        """The client sends no more."""

    @abstractmethod
    def _begin(self, head: Head, body: bytes | bytearray | memoryview, waited: float = 0.0) -> None:
        """One request is there as a whole; its body took `waited` seconds to come."""

    @abstractmethod
    def _refuse(self, fault: Refusal) -> None:
        """What came is no request."""

    @abstractmethod
    def _discard(self, size: int) -> None:
        """So many bytes came after the last request."""

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        if self._held or not take(self, data):
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

    def pause_writing(self) -> None:
        """The client takes too little of its answers."""
        self._choked = True
        self._pause()

    def resume_writing(self) -> None:
        """The client has taken most of what it was owed."""
        self._choked = False
        self._resume()

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
        elif (body := upload.reserved()) is not None:
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
        if not self._paused or self._reading or self._choked or self._parked or self.lost:
            return
        if self._held and len(self._pending) > self._state.limits.pipelined // 2:
            return
        self._paused = False
        self._transport.resume_reading()
        if self._held:
            self._read(self._held)

    def _park(self, now: float) -> None:
        """Reads nothing for a while: the client has been told so."""
        if not self._parked:
            self._parked = True
            self._pause()
            self._state.parking.park(self, now)

    def unpark(self) -> None:
        """Reads again. What came in the meantime and waited in the kernel is as old as the kernel says."""
        self._parked = False
        if not self._look_back():
            self._resume()

    def _look_back(self) -> bool:
        """Finds out since when a request has been waiting, if one has. Ends the connection, and returns True, where
        its client has left.
        """
        found = unread(self._transport)
        if found is None:
            return False
        if found.left:
            self._transport.abort()
        elif found.size:
            self._sent = monotonic() - found.age
        return found.left
