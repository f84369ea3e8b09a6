"""The last answer that was good for the same key: what an account's score was a minute ago is better than nothing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

import msgspec

from turnout.core.errors import InvalidInput, NotReady
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.core.tensors import byte_size
from turnout.graph.request_value import KINDS, read

#: What an entry takes beside its arrays (bytes, roughly).
_ENTRY_BYTES = 700
_EXAMPLE = "last_good: {key: {header: x-account-id}, max_age: 3600}"


class LastGoodKey(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where the key of a request is: exactly one of a header, a cookie, an argument of the URL or an input column."""

    header: str = ""
    cookie: str = ""
    query: str = ""
    column: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        given = [kind for kind in KINDS if getattr(self, kind)]
        if len(given) != 1:
            expected = "exactly one of header, cookie, query, column"
            got = ", ".join(given) or "none"
            raise InvalidInput("not one key", field="last_good.key", expected=expected, got=got, example=_EXAMPLE)


class LastGoodPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """max_age: seconds for which an answer may stand in. max_bytes: what all of them may take; the oldest one goes."""

    key: LastGoodKey
    max_age: float = 3600.0
    max_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if not 0.0 < self.max_age < math.inf:
            raise InvalidInput("not a duration", field="max_age", expected="seconds above 0", got=str(self.max_age))
        if self.max_bytes < 1024:
            raise InvalidInput("too small", field="max_bytes", expected="at least 1024", got=str(self.max_bytes))


class LastGoodMemory:
    """Answers by key with the time of each (monotonic seconds) and what they take; the newest at the end."""

    __slots__ = ("answers", "nbytes")

    def __init__(self) -> None:
        self.answers: OrderedDict[str, tuple[InferResponse, int, float, int]] = OrderedDict()
        self.nbytes = 0

    def __repr__(self) -> str:
        return f"LastGoodMemory({len(self.answers)} answers, {self.nbytes} bytes)"

    def keep(self, key: str, response: InferResponse, rows: int, now: float, max_bytes: int) -> None:
        """Keeps an answer in place of the one before. The arrays are copied: they may be parts of a whole batch."""
        gone = self.answers.pop(key, None)
        if gone is not None:
            self.nbytes -= gone[3]
        nbytes = byte_size(response.outputs) + len(key) + _ENTRY_BYTES
        if nbytes > max_bytes:
            return
        outputs = {name: array.copy() for name, array in response.outputs.items()}
        for array in outputs.values():
            array.flags.writeable = False
        kept = response._replace(outputs=outputs, queue_seconds=0.0, predict_seconds=0.0, batch_rows=0)
        self.answers[key] = (kept, rows, now, nbytes)
        self.nbytes += nbytes
        while self.nbytes > max_bytes:
            _, oldest = self.answers.popitem(last=False)
            self.nbytes -= oldest[3]


class LastGood:
    """Gives the last good answer for a request's key, if that is not too old and was for as many rows."""

    __slots__ = ("_clock", "_read", "memory", "policy")
    #: Needs no slice of a deadline.
    instant = True

    def __init__(
        self,
        policy: LastGoodPolicy,
        memory: LastGoodMemory | None = None,
        signature: Signature | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Raises InvalidInput for a column that the signature has not."""
        kind = next(kind for kind in KINDS if getattr(policy.key, kind))
        self.policy = policy
        self.memory = memory or LastGoodMemory()
        self._read = read(kind, getattr(policy.key, kind), signature)
        self._clock = clock

    def __repr__(self) -> str:
        kind = next(kind for kind in KINDS if getattr(self.policy.key, kind))
        return f"LastGood({kind} {getattr(self.policy.key, kind)}, at most {self.policy.max_age:g} s old)"

    async def infer(self, request: InferRequest) -> InferResponse:
        """What `answer` gives."""
        return self.answer(request)

    def answer(self, request: InferRequest) -> InferResponse:
        """The answer that is kept. Raises NotReady where there is none that fits."""
        key = self._read(request)
        found = self.memory.answers.get(key) if key is not None else None
        if found is None:
            raise NotReady("no good answer is known for this key")
        response, rows, made, _ = found
        if self._clock() - made > self.policy.max_age:
            raise NotReady("the last good answer for this key is too old")
        if rows != request.rows or any(name not in response.outputs for name in request.outputs):
            raise NotReady("the last good answer for this key was to another question")
        return response

    def remember(self, request: InferRequest, response: InferResponse) -> None:
        """Takes a good answer."""
        key = self._read(request)
        if key is not None:
            self.memory.keep(key, response, request.rows, self._clock(), self.policy.max_bytes)
