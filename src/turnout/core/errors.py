"""What can go wrong, as facts of the domain: one code each, and whose fault it is.

No protocol number stands here. Each wire protocol translates a `Code` in one table of its own.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Fault(enum.Enum):
    """Who has to change something for the request to succeed."""

    CALLER = "caller"
    MODEL = "model"
    SERVER = "server"


class Code(enum.Enum):
    """The canonical status codes; values are gRPC's numbers, names are gRPC's names."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Failure(Exception):
    """A typed failure. `str(failure)` is safe to send to the caller: it names nothing internal.

    `retry_after` is in seconds; None means that waiting does not help. `by` is which of several equal ones has failed,
    where one did: who asks again puts it into `Context.avoid`.
    """

    code: ClassVar[Code] = Code.INTERNAL
    fault: ClassVar[Fault] = Fault.SERVER
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.by: object = None


class InvalidInput(Failure):
    """The caller's message does not fit the model's signature or the protocol.

    `field` is the path in the caller's own message (`inputs[0].data`), `example` a request that works.
    """

    code = Code.INVALID_ARGUMENT
    fault = Fault.CALLER

    def __init__(self, message: str, *, field: str = "", expected: str = "", got: str = "", example: str = "") -> None:
        parts = [f"{field}: {message}" if field else message]
        if expected:
            parts.append(f"expected {expected}")
        if got:
            parts.append(f"got {got}")
        text = "; ".join(parts)
        if example:
            text += f". Example that works: {example}"
        super().__init__(text)
        self.reason = message
        self.field = field
        self.expected = expected
        self.got = got
        self.example = example

    def with_example(self, example: str) -> InvalidInput:
        """The same failure with a request that works, for codecs that know how to write one."""
        return InvalidInput(self.reason, field=self.field, expected=self.expected, got=self.got, example=example)


class ModelNotFound(Failure):
    """No model of that name is served here."""

    code = Code.NOT_FOUND
    fault = Fault.CALLER


class VersionNotFound(ModelNotFound):
    """The model is served, but not in that version."""


class Unauthenticated(Failure):
    """Nobody knows who asks; the text says how to say it."""

    code = Code.UNAUTHENTICATED
    fault = Fault.CALLER


class PermissionDenied(Failure):
    """The caller may not do this here; the text says who may."""

    code = Code.PERMISSION_DENIED
    fault = Fault.CALLER


class Conflict(Failure):
    """What was asked for starts from a state that somebody has changed in the meantime; the text says what changed."""

    code = Code.ALREADY_EXISTS
    fault = Fault.CALLER


class RateLimited(Failure):
    """The caller has used up what it may ask for in this time; others are served."""

    code = Code.RESOURCE_EXHAUSTED
    fault = Fault.CALLER
    retryable = True


class CircuitOpen(Failure):
    """Refused before any work: the version has failed so often that it is left alone for a while."""

    code = Code.UNAVAILABLE
    retryable = True


class Unsupported(Failure):
    """A part of a protocol that this server does not offer."""

    code = Code.UNIMPLEMENTED
    fault = Fault.CALLER


class NotReady(Failure):
    """The model is known but has no living, warmed-up worker at this moment."""

    code = Code.UNAVAILABLE
    retryable = True


class QueueFull(Failure):
    """Refused before any work was done: the queue is at its bound, or the wait would be too long.

    `too_late`: it is the wait, for this deadline; another request may be taken.
    """

    code = Code.UNAVAILABLE
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, too_late: bool = False) -> None:
        super().__init__(message, retry_after=retry_after)
        self.too_late = too_late


class WorkerDied(Failure):
    """The worker process ended while it held the request, and no other could answer in time."""

    code = Code.UNAVAILABLE
    retryable = True


class DeadlineExceeded(Failure):
    """The deadline passed before an answer was there. Work not yet begun was dropped."""

    code = Code.DEADLINE_EXCEEDED
    retryable = True


class Cancelled(Failure):
    """The caller went away."""

    code = Code.CANCELLED
    fault = Fault.CALLER


class ModelFailed(Failure):
    """The model raised on this input. The text names the exception's type only; the log has the rest."""

    code = Code.INTERNAL
    fault = Fault.MODEL


class InvalidOutput(ModelFailed):
    """The model answered, but not what its signature says (rows, names, shape or type)."""


class TooLarge(Failure):
    """A message is over a stated limit."""

    code = Code.RESOURCE_EXHAUSTED
    fault = Fault.CALLER


class LoadFailed(Failure):
    """An artifact could not become a model. The text says what was found and what to do."""

    code = Code.FAILED_PRECONDITION
    fault = Fault.CALLER


class FormatUnknown(LoadFailed):
    """No format recognises the artifact."""


class FormatMismatch(LoadFailed):
    """The content is not what the suffix or the user says it is."""


class PickleRefused(LoadFailed):
    """Loading this file would run code from it, and nobody said that it may."""


class MissingExtra(LoadFailed):
    """The library that reads this format is not installed; the text gives the install command."""


class SelfTestFailed(LoadFailed):
    """A model did not answer its own stored example as it is expected to; the text shows where."""


class SourceFailed(LoadFailed):
    """An artifact could not be fetched: the place refused, is down, or holds no such thing."""

    def __init__(self, message: str, *, retryable: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.retryable = retryable  # type: ignore[misc]  # whether trying again may help is known only here


class EnvironmentFailed(LoadFailed):
    """An environment could not be built; the text has the resolver's own reason."""
