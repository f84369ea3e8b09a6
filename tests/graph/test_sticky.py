"""A unit's bucket is the same everywhere, and buckets are dealt evenly."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from tests.graph.callers import asked
from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import bytes_array
from turnout.graph.allocation import BUCKETS, allocate
from turnout.graph.sticky import StickyPolicy, bucket, bucket_of

TABLE = Signature((TensorSpec("rows", "FP32", (-1, 3), ("amount", "account", "age")),), ())


def test_a_bucket_is_what_the_page_says() -> None:
    hexadecimal = hashlib.sha256(b"salt|fraud|account-1").hexdigest()
    assert bucket("salt", "fraud", "account-1") == int(hexadecimal[:8], 16) % 10_000
    assert bucket("salt", "fraud", "\udcff" + "x" * 5000) == bucket("salt", "fraud", "\udcff" + "x" * 5000)


def test_another_process_finds_the_same_bucket() -> None:
    script = "from turnout.graph.sticky import bucket; print([bucket('s', 'e', str(i)) for i in range(50)])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == str([bucket("s", "e", str(i)) for i in range(50)])


@pytest.mark.parametrize("share", [1, 10, 50])
def test_shares_of_units_are_binomial(share: int) -> None:
    """Of 20,000 units the canary's share is within four standard deviations, for any salt."""
    allocation = allocate({"v7": 100 - share, "v8": share}, allocate({"v7": 100}))
    for salt in ("", "a", "2026-11"):
        found = bucket_of(salt, "fraud")
        units, p = 20_000, share / 100
        count = sum(allocation.find(found(f"account-{i}")) == "v8" for i in range(units))
        assert abs(count - units * p) < 4 * math.sqrt(units * p * (1 - p))


def test_another_salt_or_endpoint_deals_anew() -> None:
    """Who was in the first tenth is there again by chance only."""
    first = {i for i in range(20_000) if bucket("", "fraud", str(i)) < BUCKETS // 10}
    for salt, endpoint in (("next", "fraud"), ("", "churn")):
        again = {i for i in first if bucket(salt, endpoint, str(i)) < BUCKETS // 10}
        assert 0.05 < len(again) / len(first) < 0.16


@pytest.mark.parametrize(
    ("policy", "request_", "unit"),
    [
        (StickyPolicy(header="X-Account-Id"), asked(header={"x-account-id": "7"}), "7"),
        (StickyPolicy(header="x-account-id"), asked(header={"x-account-id": ""}), None),
        (StickyPolicy(header="x-account-id"), asked(), None),
        (StickyPolicy(cookie="Session"), asked(cookie={"Session": "s"}), "s"),
        (StickyPolicy(cookie="Session"), asked(cookie={"session": "s"}), None),
        (StickyPolicy(query="user"), asked(query={"user": "u"}), "u"),
        (StickyPolicy(column="id"), asked(inputs={"id": np.array([7, 8])}), "7"),
        (StickyPolicy(column="id"), asked(inputs={"id": np.array([[7.0], [8.0]], np.float32)}), "7"),
        (StickyPolicy(column="id"), asked(inputs={"id": np.array([0.1], np.float32)}), "0.1"),
        (StickyPolicy(column="id"), asked(inputs={"id": np.array([np.nan])}), None),
        (StickyPolicy(column="id"), asked(inputs={"id": np.array([True])}), "true"),
        (StickyPolicy(column="id"), asked(inputs={"id": bytes_array(["ä", "b"], (2,))}), "ä"),
        (StickyPolicy(column="id"), asked(inputs={"id": bytes_array([b"\xff"], (1,))}), "\ufffd"),
        (StickyPolicy(column="id"), asked(inputs={"other": np.array([7])}), None),
    ],
)
def test_where_a_unit_comes_from(policy: StickyPolicy, request_: object, unit: str | None) -> None:
    assert policy.reader()(request_) == unit  # type: ignore[arg-type]


def test_a_column_of_a_table_is_found_by_its_name() -> None:
    rows = np.array([[1.5, 12, 30], [2.5, 13, 31]], np.float32)
    assert StickyPolicy(column="account").reader(TABLE)(asked(inputs={"rows": rows})) == "12"
    with pytest.raises(InvalidInput, match="amount, account, age"):
        StickyPolicy(column="acount").reader(TABLE)


@pytest.mark.parametrize("said", [{}, {"salt": "s"}, {"header": "a", "cookie": "b"}])
def test_exactly_one_unit(said: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="exactly one of header, cookie, query, column"):
        msgspec.convert(said, StickyPolicy)


def test_a_request_through_no_door_has_no_unit() -> None:
    request = asked()
    request = request._replace(context=request.context._replace(attributes=None))
    for policy in (StickyPolicy(header="a"), StickyPolicy(cookie="a"), StickyPolicy(query="a")):
        assert policy.reader()(request) is None
