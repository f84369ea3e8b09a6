"""`GET /metrics`: this router's counters and those of every other router that shares the port."""

from __future__ import annotations

import asyncio
from itertools import count

from turnout.core.errors import Failure
from turnout.core.servable import Serving
from turnout.monitoring.exposition import render
from turnout.monitoring.metrics import Metrics
from turnout.monitoring.snapshot import Snapshot
from turnout.protocols.http import HttpRequest, HttpResponse, Route, status_of
from turnout.runtime.wire import Message, Wire

_PATIENCE = 1.0


class Scrape:
    """A REST protocol of one route. The controller carries snapshots between routers.

    A router that does not answer within a second is left out: a stuck process must not hide the others. While there is
    no controller, so are all others.
    """

    name = "metrics"

    def __init__(self, metrics: Metrics, wire: Wire) -> None:
        self._metrics = metrics
        self._wire = wire
        self._numbers = count(1)
        self._waiting: dict[int, _Gathering] = {}

    def routes(self) -> tuple[Route, ...]:
        """GET /metrics."""
        return (Route("GET", "/metrics", answer=self.answer, summary="Metrics for Prometheus"),)

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """Plain text."""
        del http
        return HttpResponse(status_of(failure), "text/plain", failure.message.encode())

    async def answer(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        """The exposition in the form that the scraper accepts."""
        del serving, name, version
        snapshots = await self._gather()
        # Rendering takes about a millisecond per version: not on the event loop.
        content_type, body = await asyncio.to_thread(
            render, http.headers.get("accept", ""), [self._metrics.snapshot(), *snapshots]
        )
        return HttpResponse(200, content_type, body)

    async def _gather(self) -> list[Snapshot]:
        if self._wire.away:
            return []
        number = next(self._numbers)
        gathering = self._waiting[number] = _Gathering()
        self._wire.send({"event": "gather", "id": number})
        try:
            async with asyncio.timeout(_PATIENCE):
                await gathering.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._waiting[number]
        return gathering.snapshots

    def obey(self, message: Message) -> None:
        """Takes what the controller says: give yours, so many will come, here is one."""
        number = message["id"]
        if message["op"] == "snapshot":
            mine = {"event": "snapshot", "id": number, "for": message["for"], "snapshot": self._metrics.snapshot()}
            self._wire.send(mine)
        elif number in self._waiting:
            gathering = self._waiting[number]
            if message["op"] == "gathering":
                gathering.others = message["others"]
            else:
                gathering.snapshots.append(message["snapshot"])
            if len(gathering.snapshots) == gathering.others:
                gathering.complete.set()


class _Gathering:
    """Snapshots of others on their way."""

    def __init__(self) -> None:
        self.others = -1
        self.snapshots: list[Snapshot] = []
        self.complete = asyncio.Event()
