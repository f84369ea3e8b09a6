"""A replica as the router sees it: a place that takes batches and gives their outcomes back."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from turnout.core import errors
from turnout.core.errors import Failure, InvalidInput, ModelFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors, join_rows
from turnout.runtime import frames
from turnout.runtime.batch import Batch
from turnout.runtime.channel import open_near
from turnout.runtime.predict import Outcome, predict_batch


class Place(Protocol):
    """Where batches run. `run` may be called while `free` > 0; each batch then comes to `done` or `lost`.

    `done(place, batch, outcome)` gives what came of it; `lost(place, batches)` says that the place died
    with these batches inside. `busy_since` is when the oldest batch inside began (monotonic seconds), 0 if idle.
    """

    name: str
    free: int
    busy_since: float

    def inside(self) -> Sequence[Batch]: ...
    def run(self, batch: Batch) -> None: ...
    def close(self) -> None: ...


Done = Callable[[Place, Batch, Outcome], None]
Lost = Callable[[Place, Sequence[Batch]], None]


class Inline:
    """Predict in this very thread: the last microseconds, for the library and for trusted models."""

    def __init__(self, name: str, model: Model, done: Done) -> None:
        self.name = name
        self.free = 1
        self.busy_since = 0.0
        self._model = model
        self._done = done

    def __repr__(self) -> str:
        return f"Inline({self.name})"

    def inside(self) -> Sequence[Batch]:
        """Nothing stays inside: `run` answers before it returns."""
        return ()

    def run(self, batch: Batch) -> None:
        inputs = join_rows([item.inputs for item in batch.items])
        outcome = predict_batch(self._model, inputs, batch.rows(), batch.deadlines())
        self._done(self, batch, outcome)

    def close(self) -> None:
        """Nothing to give back."""


class Replica:
    """One worker process over one link. `slots` batches may be inside, the second waiting for the first."""

    def __init__(
        self,
        name: str,
        signature: Signature,
        sock: socket.socket,
        done: Done,
        lost: Lost,
        *,
        slots: int = 2,
        memory: bool | None = None,
    ) -> None:
        self.name = name
        self.free = slots
        self.busy_since = 0.0
        self._inputs = tuple(enumerate(spec.name for spec in signature.inputs))
        self._outputs = tuple(spec.name for spec in signature.outputs)
        self._done = done
        self._lost = lost
        self._inside: deque[Batch] = deque()
        self._loop = asyncio.get_running_loop()
        self._near = open_near(sock, slots, memory=memory)
        self._near.blocked = self._watch_writable
        self._number = 0
        for wake in self._near.wakes():
            self._loop.add_reader(wake, self._collect)

    def __repr__(self) -> str:
        return f"Replica({self.name}, {len(self._inside)} inside)"

    def inside(self) -> Sequence[Batch]:
        """The batches that were sent and not answered yet, oldest first."""
        return tuple(self._inside)

    def run(self, batch: Batch) -> None:
        self._number += 1
        batch.number = self._number
        items = batch.items
        first = items[0]
        pieces = [
            frames.joined(place, form, [item.part(name) for item in items], batch.total_rows)
            for place, name in self._inputs
            if (form := first.form(name)) is not None
        ]
        parts = frames.encode(batch.number, 0.0, batch.rows(), batch.deadlines(), pieces)
        if not self._inside:
            self.busy_since = monotonic()
        self.free -= 1
        self._inside.append(batch)
        self._near.send(parts)

    def close(self) -> None:
        """Lets go of the worker; what was inside is not reported."""
        self.free = 0
        self._inside.clear()
        self._unwatch()

    def _unwatch(self) -> None:
        for wake in self._near.wakes():
            self._loop.remove_reader(wake)
        self._watch_writable(on=False)
        self._near.close()

    def _watch_writable(self, on: bool) -> None:
        link = self._near.wakes()[-1]
        if on:
            self._loop.add_writer(link, self._near.flush)
        else:
            self._loop.remove_writer(link)

    def _collect(self) -> None:
        try:
            for buffer in self._near.collect():
                frame = frames.decode(buffer)
                if not self._inside:
                    raise frames.BrokenFrame("an outcome that nobody has asked for")
                batch = self._inside[0]
                if frame.number != batch.number or len(frame.rows) != len(batch.items):
                    raise frames.BrokenFrame("an outcome for another batch")
                outcome = self._outcome(frame)
                self._inside.popleft()
                self.free += 1
                self.busy_since = monotonic() if self._inside else 0.0
                self._done(self, batch, outcome)
        except (EOFError, frames.BrokenFrame):
            self.die()

    def die(self) -> None:
        """Reports what is inside as lost: the worker is gone, or wrote nonsense."""
        if not self.free and not self._inside:
            return  # closed already
        inside = list(self._inside)
        self.close()
        self._lost(self, inside)

    def _outcome(self, frame: frames.Frame) -> Outcome:
        # Copied out at once: the worker may write there again, and must not be able to change an answer.
        try:
            outputs: Tensors = {self._outputs[place]: array.copy() for place, array in frame.tensors.items()}
            if not 0.0 <= frame.seconds < 1e9:
                raise frames.BrokenFrame("a batch cannot take that long")
            if frame.note is None:
                return Outcome(outputs, (), frame.seconds, (), frame.twin)
            failures: list[Failure | None] = [None] * len(frame.rows)
            for i, found in frame.note["failures"].items():
                failures[int(i)] = _failure(found)
            details = [_text(detail) for detail in frame.note["details"]]
            return Outcome(outputs, failures, frame.seconds, details, frame.twin)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as problem:
            raise frames.BrokenFrame(str(problem)) from None


def _failure(found: dict[str, Any]) -> Failure:
    kind = getattr(errors, found["type"], ModelFailed)
    if kind is InvalidInput:
        field, expected, got = (_text(found[name]) for name in ("field", "expected", "got"))
        return InvalidInput(_text(found["reason"]), field=field, expected=expected, got=got)
    if not (isinstance(kind, type) and issubclass(kind, Failure)):
        kind = ModelFailed
    failure: Failure = kind(_text(found["message"]))
    return failure


def _text(found: object) -> str:
    """Text that can be sent on: a worker may write anything into a note."""
    if not isinstance(found, str):
        raise TypeError(f"text was expected in a note, not {type(found).__name__}")
    return found.encode(errors="replace").decode()
