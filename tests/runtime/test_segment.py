"""Shared memory that grows, never shrinks, and goes when it is let go."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.runtime.segment import PAGE, Segment, available

pytestmark = pytest.mark.skipif(not available(), reason="no memfd here")


@pytest.fixture
def both() -> tuple[Segment, Segment]:
    ours = Segment.create(100)
    theirs = Segment.attach(os.dup(ours.fd))
    yield ours, theirs
    ours.close()
    theirs.close()


def test_it_is_as_large_as_whole_pages(both: tuple[Segment, Segment]) -> None:
    assert [one.size for one in both] == [PAGE, PAGE]


@given(st.lists(st.lists(st.binary(max_size=3 * PAGE), max_size=4), max_size=6))
def test_the_other_side_sees_what_was_written(writes: list[list[bytes]]) -> None:
    ours = Segment.create(1)
    theirs = Segment.attach(os.dup(ours.fd))
    try:
        for parts in writes:
            size = ours.write(parts)
            assert bytes(theirs.view(size)) == b"".join(parts)
    finally:
        ours.close()
        theirs.close()


def test_it_grows_for_both_sides_and_old_views_live_on(both: tuple[Segment, Segment]) -> None:
    ours, theirs = both
    ours.write([b"small"])
    old = theirs.view(5)
    large = bytes(range(256)) * 1000
    ours.write([large[:100], memoryview(large)[100:]])
    assert theirs.size == PAGE
    assert bytes(theirs.view(len(large))) == large
    assert theirs.size >= len(large)
    assert bytes(old) == large[:5], "it is the same memory"


def test_nobody_can_shrink_it_or_unseal_it(both: tuple[Segment, Segment]) -> None:
    """A worker that could would kill the router with SIGBUS."""
    for one in both:
        with pytest.raises(PermissionError):
            os.ftruncate(one.fd, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(one.fd, one.size - 1)
        with pytest.raises(PermissionError):
            fcntl.fcntl(one.fd, 1033, 0x0008)  # F_ADD_SEALS, F_SEAL_WRITE
        with pytest.raises(OSError):
            fcntl.fcntl(one.fd, 1033, 0)


def test_it_never_asks_for_more_than_is_there(both: tuple[Segment, Segment]) -> None:
    with pytest.raises(ValueError, match="bytes asked of a segment"):
        both[0].view(PAGE + 1)
    with pytest.raises(ValueError, match="bytes asked of a segment"):
        both[0].view(1 << 62)


def test_growth_is_bounded_by_need() -> None:
    one = Segment.create(1)
    try:
        one.write([bytes(PAGE + 1)])
        assert one.size == 2 * PAGE
        one.write([bytes(10 * PAGE)])
        assert 10 * PAGE <= one.size <= 20 * PAGE
    finally:
        one.close()


def test_closing_gives_the_descriptor_back_and_may_be_done_twice() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    one = Segment.create(1)
    view = one.view(1)
    one.close()
    one.close()
    assert bytes(view) == b"\0", "what is viewed stays until the view goes"
    view.release()
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "the mapping's own as well, whoever keeps the segment"
    with pytest.raises(ValueError, match="closed"):
        one.view(1)
