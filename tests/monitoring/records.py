"""Records as a door would make them."""

from __future__ import annotations

from hypothesis import strategies as st

from turnout.core.errors import Code
from turnout.monitoring.record import RequestRecord

RECORD = RequestRecord(
    model="iris",
    version="1",
    protocol="v2",
    code=Code.OK,
    rows=3,
    decode=0.00002,
    queue=0.0003,
    predict=0.002,
    encode=0.00001,
    total=0.0025,
    batch_rows=8,
    request_id="id-1",
    peer="127.0.0.1:5000",
    bytes_in=120,
    bytes_out=80,
)

_seconds = st.floats(0, 20).map(lambda value: round(value, 6))

records = st.builds(
    RequestRecord,
    model=st.sampled_from(["iris", "digits"]),
    version=st.sampled_from(["1", "2"]),
    protocol=st.sampled_from(["v2", "grpc"]),
    code=st.sampled_from([Code.OK, Code.UNAVAILABLE, Code.INVALID_ARGUMENT]),
    rows=st.integers(1, 64),
    decode=_seconds,
    queue=_seconds,
    predict=_seconds,
    encode=_seconds,
    total=_seconds,
    batch_rows=st.integers(1, 64),
    request_id=st.text(max_size=8),
    peer=st.just("127.0.0.1:5000"),
    bytes_in=st.integers(0, 2**40),
    bytes_out=st.integers(0, 2**40),
)
