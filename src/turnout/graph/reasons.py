"""Why somebody else has answered, in the words that callers, metrics and records get."""

from __future__ import annotations

from turnout.core.errors import CircuitOpen, DeadlineExceeded, Failure, Fault, InvalidOutput, NotReady, QueueFull

ERROR = "error"
TIMEOUT = "timeout"
PREDICTED_TIMEOUT = "predicted_timeout"
INVALID_OUTPUT = "invalid_output"
CIRCUIT_OPEN = "circuit_open"
OVERLOADED = "overloaded"
NOT_READY = "not_ready"
REASONS = (ERROR, TIMEOUT, PREDICTED_TIMEOUT, INVALID_OUTPUT, CIRCUIT_OPEN, OVERLOADED, NOT_READY)

_BY_KIND: tuple[tuple[type[Failure], str], ...] = (
    (InvalidOutput, INVALID_OUTPUT),
    (DeadlineExceeded, TIMEOUT),
    (CircuitOpen, CIRCUIT_OPEN),
    (NotReady, NOT_READY),
)


def reason_of(problem: Exception) -> str:
    """The word for a failure; "" for one that is the caller's own mistake, for which nobody stands in."""
    if isinstance(problem, QueueFull):
        return PREDICTED_TIMEOUT if problem.too_late else OVERLOADED
    for kind, word in _BY_KIND:
        if isinstance(problem, kind):
            return word
    return "" if isinstance(problem, Failure) and problem.fault is Fault.CALLER else ERROR
