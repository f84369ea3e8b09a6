"""What a router asks the controller for its callers: numbered questions over its wire, and their answers."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from turnout.core import errors
from turnout.core.errors import Failure, InvalidInput, NotReady
from turnout.runtime.wire import Message, Wire

_PATIENCE = 600.0
_AWAY = "the control plane is being started again; predictions go on"


class Questions:
    """Asks over one wire. Belongs to the running event loop."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._away = False

    def lost(self) -> None:
        """The controller is gone: who waits for it is told so, and who asks from now on."""
        self._away = True
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(NotReady(_AWAY, retry_after=1.0))

    def found(self, wire: Wire) -> None:
        """There is a controller again, at the other end of this wire."""
        self._wire = wire
        self._away = False

    def obey(self, message: Message) -> None:
        """Takes what the controller answers."""
        waiter = self._waiting.get(message["id"])
        if waiter is not None and not waiter.done():
            waiter.set_result(message["answer"])

    async def ask(self, question: Message) -> Any:
        """What the controller answers. Raises the failure that it answers with, or NotReady where it takes too long."""
        if self._away:
            raise NotReady(_AWAY, retry_after=1.0)
        number = next(self._numbers)
        waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._wire.send({"event": "ask", "id": number, "question": question})
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await waiter
        except TimeoutError:
            raise NotReady("the server has not finished that yet; ask the index how far it is") from None
        finally:
            del self._waiting[number]
        if "failed" in found:
            raise failure_of(found)
        return found["answer"]


def failure_of(found: Message) -> Failure:
    """The failure that travelled as JSON."""
    kind = getattr(errors, str(found["failed"]), None)
    if kind is None:
        from turnout.deploy.store import failures  # nobody needs it before a store fails

        kind = getattr(failures, str(found["failed"]), None)
    if kind is InvalidInput or not (isinstance(kind, type) and issubclass(kind, Failure)):
        return InvalidInput(found["message"])
    failure: Failure = kind(found["message"])
    return failure
