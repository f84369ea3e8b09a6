"""The worker's side of the runtime: takes batches from its links, predicts, answers, until told to stop.

Plain and synchronous; needs numpy and the standard library, so it runs in any model's own environment.
"""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from turnout.core.errors import Failure, InvalidInput
from turnout.core.servable import Model
from turnout.core.signature import Signature
from turnout.core.tensors import DTYPES, Tensors
from turnout.runtime import frames
from turnout.runtime.channel import Far, open_far
from turnout.runtime.lifeline import Lifeline
from turnout.runtime.predict import predict_batch, run_model
from turnout.runtime.wire import Message

logger = logging.getLogger("turnout")
Control = Callable[[Message, list[int]], bool]


class WorkLoop:
    """Serves one loaded model to any number of routers.

    `control` gets every message from the controller; it returns False to stop the loop. hello: what the next
    controller is told when this one is gone.
    """

    def __init__(self, model: Model, wire: Lifeline, control: Control, hello: Message | None = None) -> None:
        self._model = model
        self._names = tuple(spec.name for spec in model.signature.inputs)
        self._places = {spec.name: place for place, spec in enumerate(model.signature.outputs)}
        self._wire = wire
        self._control = control
        self._hello = hello
        self._links: dict[int, Far] = {}
        self._poll = select.poll()
        self._poll.register(wire.fileno(), select.POLLIN)

    def add_link(self, fd: int) -> None:
        """Takes over a link socket to a router."""
        try:
            far = open_far(socket.socket(fileno=fd))
        except (EOFError, OSError):
            return  # the router died, or the controller did before it gave the router the other end
        for wake in far.wakes():
            self._links[wake] = far
            self._poll.register(wake, select.POLLIN)

    def run(self) -> None:
        """Works until the controller says stop, or none is to be had, and lets go of its links."""
        try:
            self._work()
        finally:
            for far in set(self._links.values()):
                self._drop(far)

    def _work(self) -> None:
        while not self._wire.away or self._look():
            for fd, _events in self._poll.poll(self._patience()):
                if fd == self._wire.fileno():
                    try:
                        for message, fds in self._wire.poll():
                            if not self._control(message, fds):
                                return
                    except EOFError:
                        self._poll.unregister(fd)
                        if not self._wire.lost():
                            return
                elif fd in self._links:
                    self._serve(fd, self._links[fd])

    def _patience(self) -> float | None:
        """Milliseconds until the next controller is looked for; None while there is one."""
        return 1000.0 * self._wire.delay if self._wire.away else None

    def _look(self) -> bool:
        """Looks for a controller, if it is time for that. False when nobody needs this process any more."""
        if self._wire.find(self._hello or {}):
            self._poll.register(self._wire.fileno(), select.POLLIN)
        return not self._wire.over or bool(self._links)

    def _serve(self, fd: int, far: Far) -> None:
        wakes = far.wakes()
        if fd != wakes[0]:  # the link socket of shared memory: it only ever says that the router is gone
            self._drop(far)
            return
        try:
            for buffer in far.take():
                far.answer(self.answer(frames.decode(buffer)))
        except (EOFError, OSError, frames.BrokenFrame):
            self._drop(far)

    def _drop(self, far: Far) -> None:
        for wake in far.wakes():
            self._links.pop(wake, None)
            self._poll.unregister(wake)
        far.close()

    def answer(self, frame: frames.Frame) -> list[bytes | memoryview]:
        """The outcome of one batch as a frame."""
        names, places = self._names, self._places
        inputs = {names[place]: array for place, array in frame.tensors.items()}
        outputs, failures, seconds, details, twin = predict_batch(self._model, inputs, frame.rows, frame.deadlines)
        pieces = [frames.piece(places[name], array) for name, array in outputs.items()]
        note = failure_note(failures, details) if any(failures) else None
        statuses = [0 if failure is None else 1 for failure in failures]
        return frames.encode(frame.number, seconds, statuses, (), pieces, note, twin)


def failure_note(failures: Sequence[Failure | None], details: Sequence[str]) -> Any:
    """The failures of an outcome as JSON, and their tracebacks for the router's log."""
    failed = {str(i): _failure_json(f) for i, f in enumerate(failures) if f is not None}
    return {"failures": failed, "details": [d[-4000:] for d in details[:4]]}


def _failure_json(failure: Failure) -> dict[str, str]:
    found = {"type": type(failure).__name__, "message": failure.message}
    if isinstance(failure, InvalidInput):
        found |= {k: getattr(failure, k) for k in ("reason", "field", "expected", "got")}
    return found


def example_inputs(signature: Signature, rows: int = 1) -> Tensors:
    """Zeros (or empty text) for every input, `rows` rows of it; free dimensions other than the first are 1."""
    found = {}
    for spec in signature.inputs:
        shape = [1 if size == -1 else size for size in spec.shape]
        if signature.batched:
            shape[0] = rows
        if spec.datatype == "BYTES":
            array = np.empty(shape, dtype=object)
            array.fill(b"")
        else:
            array = np.zeros(shape, dtype=DTYPES[spec.datatype])
        found[spec.name] = array
    return found


def warm_up(model: Model, example: Tensors | None, seconds: float = 0.5, runs: int = 3) -> list[tuple[int, float]]:
    """Runs the model a few times before it is ready; gives (rows, seconds) for the batcher's first estimate.

    A made-up example that the model refuses is no reason not to serve it; a real example that fails is.
    """
    signature = model.signature
    real = example is not None
    inputs = example if example is not None else example_inputs(signature)
    rows = next(iter(inputs.values())).shape[0] if signature.batched and inputs else 1
    measured: list[tuple[int, float]] = []
    spent = 0.0
    for _ in range(runs):
        started = perf_counter()
        try:
            run_model(model, inputs, rows)
        except Exception as problem:
            if real:
                raise
            logger.warning("warm-up on made-up rows failed: %s: %s", type(problem).__name__, problem)
            break
        measured.append((rows, perf_counter() - started))
        spent += measured[-1][1]
        if spent > seconds:
            break
    return measured[1:] or measured
