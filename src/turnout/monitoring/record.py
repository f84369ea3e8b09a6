"""What a door tells about each request it has answered."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from turnout.core.errors import Code


class RequestRecord(NamedTuple):
    """One answered prediction request. Times in seconds; `decode`..`encode` are parts of `total`.

    `version` is the one that answered, `variant` the one that the request was assigned to; they differ where the
    answer is `degraded`, which then says why.
    """

    model: str
    version: str
    protocol: str
    code: Code
    rows: int
    decode: float
    queue: float
    predict: float
    encode: float
    total: float
    batch_rows: int
    request_id: str
    peer: str
    bytes_in: int
    bytes_out: int
    variant: str = ""
    degraded: str = ""
    prediction_id: str = ""


class Observer(Protocol):
    """Takes records on the hot path: must cost little and never raise."""

    def request(self, record: RequestRecord) -> None: ...
