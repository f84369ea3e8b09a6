"""An open-loop client for endpoints: requests are sent when they are due, whatever comes back, and all are kept."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from turnout.testing.server import Server


class Seen(NamedTuple):
    """One request: its number, when it was due, sent and answered (monotonic seconds), and what came back.

    `unit`: what its account header said. `value`: the first number of the answer, NaN without one.
    """

    number: int
    due: float
    sent: float
    ended: float
    status: int
    value: float
    unit: str
    variant: str
    served_by: str
    revision: int
    degraded: str
    text: str


class OpenLoop:
    """Sends `rate` requests a second to one endpoint from a thread of its own, until it is stopped."""

    def __init__(
        self,
        server: Server,
        endpoint: str,
        rate: float,
        *,
        connections: int = 64,
        units: Sequence[str] = (),
        deadline: float = 0.0,
        value: Callable[[int], float] = float,
    ) -> None:
        self.seen: list[Seen] = []
        self._server, self._endpoint, self._rate = server, endpoint, rate
        self._connections, self._units, self._deadline, self._value = connections, units, deadline, value
        self._writers: list[asyncio.StreamWriter] = []
        self._stopped = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60.0)
        if self._problem is not None:
            raise self._problem

    def wait_for(self, count: int, patience: float = 60.0) -> None:
        """Waits until so many requests were answered."""
        until = time.monotonic() + patience
        while len(self.seen) < count and time.monotonic() < until and self._thread.is_alive():
            time.sleep(0.01)

    def _run(self) -> None:
        try:
            asyncio.run(self._send())
        except BaseException as problem:
            self._problem = problem

    async def _send(self) -> None:
        gc.collect()
        gc.freeze()  # a collection of all that a long run of tests has left would hold up this client, not the server
        idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(self._connections):
            idle.put_nowait(None)
        start, tasks, number = time.monotonic(), set(), 0
        while not self._stopped.is_set():
            number += 1
            due = start + number / self._rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.ensure_future(self._one(idle, number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        gc.unfreeze()
        for writer in self._writers:
            writer.close()

    async def _one(
        self, idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None], number: int, due: float
    ) -> None:
        pair = await idle.get()
        if pair is None or pair[0].at_eof():
            pair = await asyncio.open_connection(self._server.host, self._server.port)
            self._writers.append(pair[1])
        reader, writer = pair
        unit = self._units[number % len(self._units)] if self._units else ""
        body = json.dumps({"x": [self._value(number)]}).encode()
        head = [
            f"POST /predict/{self._endpoint} HTTP/1.1",
            "Host: t",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        if unit:
            head.append(f"X-Account-Id: {unit}")
        if self._deadline:
            head.append(f"X-Request-Deadline-Ms: {self._deadline * 1e3:g}")
        sent = time.monotonic()
        try:
            writer.write("\r\n".join([*head, "", ""]).encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.split(": ", 1) for line in answer.lower().split("\r\n")[1:] if ": " in line)
            text = (await reader.readexactly(int(fields["content-length"]))).decode()
            status = int(answer[9:12])
        except (OSError, EOFError, asyncio.IncompleteReadError) as problem:
            idle.put_nowait(None)
            self._keep(number, due, sent, unit, 0, {}, repr(problem))
            return
        idle.put_nowait(pair)
        self._keep(number, due, sent, unit, status, fields, text)

    def _keep(
        self, number: int, due: float, sent: float, unit: str, status: int, fields: dict[str, str], text: str
    ) -> None:
        value = float("nan")
        if status == 200:
            value = float(json.loads(text)["predictions"][0]["score"])
        self.seen.append(
            Seen(
                number, due, sent, time.monotonic(), status, value, unit, fields.get("x-variant", ""),
                fields.get("x-served-by", ""), int(fields.get("x-revision", "0")), fields.get("x-degraded", ""),
                text,
            )
        )  # fmt: skip
