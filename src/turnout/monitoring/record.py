"""What a door tells about each request it has answered."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from turnout.core.errors import Code


class RequestRecord(NamedTuple):
    """One answered prediction request. Times in seconds; `decode`..`encode` are parts of `total`."""

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


class Observer(Protocol):
    """Takes records on the hot path: must cost little and never raise."""

    def request(self, record: RequestRecord) -> None: ...
