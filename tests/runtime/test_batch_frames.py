"""Frames come back as they were sent, and nothing that is not one is taken for one."""

from __future__ import annotations

import json
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core.tensors import DTYPES, bytes_array, dtype_name, pack
from turnout.runtime import frames
from turnout.runtime.frames import BrokenFrame, Frame

HEAD = struct.Struct("<IIIIIIQdQ")
TENSOR = struct.Struct("<HBBIQQ")
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    name = draw(st.sampled_from(list(DTYPES)))
    shape = draw(shapes)
    if name == "BYTES":
        size = int(np.prod(shape))
        return bytes_array(draw(st.lists(st.binary(max_size=9), min_size=size, max_size=size)), shape)
    return draw(hnp.arrays(DTYPES[name], shape))


@st.composite
def whole(draw: st.DrawFn) -> tuple[bytes, list[np.ndarray]]:
    arrays = draw(st.lists(tensors(), max_size=4))
    rows = draw(st.lists(st.integers(0, 2**32 - 1), max_size=5))
    deadlines = draw(st.lists(st.floats(allow_nan=False), min_size=len(rows), max_size=len(rows)))
    note = draw(st.none() | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
    pieces = [frames.piece(i, array) for i, array in enumerate(arrays)]
    return b"".join(frames.encode(7, 0.25, rows, deadlines, pieces, note)), arrays


def same(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype.kind == "O":
        return left.shape == right.shape and left.ravel().tolist() == right.ravel().tolist()
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(
    st.lists(tensors(), max_size=4),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.floats(allow_nan=False)), max_size=5),
    st.none() | st.dictionaries(st.text(), st.integers() | st.text(), max_size=3),
    st.integers(0, 2**64 - 1),
)
def test_a_frame_comes_back(arrays: list, timed: list, note: object, number: int) -> None:
    rows, deadlines = [row for row, _ in timed], [until for _, until in timed]
    pieces = [frames.piece(i * 3, array) for i, array in enumerate(arrays)]
    parts = frames.encode(number, 1.5, rows, deadlines, pieces, note)
    data = b"".join(parts)
    assert frames.frame_bytes(data) == len(data)
    for buffer in (data, bytearray(data + b"what follows"), memoryview(data)):
        found = frames.decode(buffer)
        assert found[:4] == (number, 1.5, rows, deadlines)
        assert found.note == note
        assert list(found.tensors) == [i * 3 for i in range(len(arrays))]
        assert all(same(got, sent) for got, sent in zip(found.tensors.values(), arrays, strict=True))


@given(tensors().filter(lambda array: array.ndim), st.lists(st.integers(0, 5), max_size=4))
def test_what_is_joined_on_the_wire_equals_what_is_joined_before(array: np.ndarray, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(array)) for cut in cuts), len(array)]
    parts = [array[start:stop] for start, stop in pairwise(edges)]
    form = (dtype_name(array.dtype), parts[0].shape)
    joined = frames.joined(0, form, [pack(part) for part in parts], len(array))
    data = b"".join(frames.encode(1, 0.0, [], [], [joined]))
    assert same(frames.decode(data).tensors[0], array)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_what_does_not_lie_in_one_piece(array: np.ndarray) -> None:
    for view in (array.T, array[:, ::2], array[::-1]):
        data = b"".join(frames.encode(1, 0.0, [], [], [frames.piece(0, view)]))
        assert same(frames.decode(data).tensors[0], np.ascontiguousarray(view))


def test_tensors_are_aligned() -> None:
    pieces = [frames.piece(i, np.arange(i + 1, dtype=np.float64)) for i in range(5)]
    found = frames.decode(b"".join(frames.encode(1, 0.0, [1], [2.0], pieces)))
    starts = [array.__array_interface__["data"][0] for array in found.tensors.values()]
    assert len({start % frames.ALIGN for start in starts}) == 1


def decode_or_refuse(data: bytes) -> Frame | None:
    """Never anything but a frame or BrokenFrame, and never more memory than the bytes that came."""
    try:
        found = frames.decode(data)
    except BrokenFrame:
        return None
    # A tensor holds no more than came; an element of BYTES takes eight bytes where it took four.
    assert all(array.nbytes <= 2 * len(data) for array in found.tensors.values())
    return found


@given(st.binary(max_size=300))
@example(b"")
@example(b"\x00" * 48)
def test_noise_is_refused(data: bytes) -> None:
    assert decode_or_refuse(data) is None


@given(whole(), st.data())
def test_mutations_are_refused_or_harmless(made: tuple, data: st.DataObject) -> None:
    mutated = bytearray(made[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, min(len(mutated), 200) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    decode_or_refuse(bytes(mutated))


@given(whole(), st.data())
def test_a_cut_frame_is_refused(made: tuple, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(made[0]) - 1))
    assert decode_or_refuse(made[0][:cut]) is None


def hostile(**changed: int) -> bytes:
    fields = {"magic": frames.MAGIC, "items": 0, "timed": 0, "tensors": 0, "note": 0, "zero": 0, "number": 1}
    fields |= {"seconds": 0, "total": frames.HEAD_BYTES} | changed
    return HEAD.pack(*fields.values())


HUGE = 1 << 40


@pytest.mark.parametrize(
    "data",
    [
        hostile(items=2**32 - 1),
        hostile(timed=2**32 - 1),
        hostile(tensors=2**32 - 1),
        hostile(note=2**32 - 1),
        hostile(total=2**64 - 1),
        hostile(magic=1),
        # a tensor of no bytes that says it is a terabyte
        hostile(tensors=1, total=80) + TENSOR.pack(0, 11, 1, 0, 80, 0) + struct.pack("<q", HUGE),
        hostile(tensors=1, total=80) + TENSOR.pack(0, 12, 1, 0, 80, 0) + struct.pack("<q", HUGE),
        # sizes that overflow
        hostile(tensors=1, total=96) + TENSOR.pack(0, 11, 3, 0, 96, 0) + struct.pack("<3q", 1 << 62, 1 << 62, 4),
        hostile(tensors=1, total=80) + TENSOR.pack(0, 11, 1, 0, 2**64 - 1, 8) + struct.pack("<q", 1),
        hostile(tensors=1, total=80) + TENSOR.pack(0, 11, 1, 0, 0, 2**64 - 1) + struct.pack("<q", 1),
        hostile(tensors=1, total=80) + TENSOR.pack(0, 11, 1, 0, 72, 8) + struct.pack("<q", -1),
        # no such type, too many dimensions
        hostile(tensors=1, total=80) + TENSOR.pack(0, 99, 1, 0, 72, 8) + struct.pack("<q", 1),
        hostile(tensors=1, total=72) + TENSOR.pack(0, 11, 255, 0, 72, 0),
        # a note that nests without end, and one that is no JSON
        hostile(note=200_000, total=48 + 200_000) + b"[" * 200_000,
        hostile(note=4, total=52) + b"\xff\xfe\x00\x01",
    ],
)
def test_hostile_frames_are_refused_without_taking_memory(data: bytes) -> None:
    assert decode_or_refuse(data) is None


def test_a_zero_size_needs_no_bytes() -> None:
    data = b"".join(frames.encode(1, 0.0, [2], [], [frames.piece(0, np.zeros((2, 0, 7), np.float32))]))
    assert frames.decode(data).tensors[0].shape == (2, 0, 7)


def test_notes_are_json() -> None:
    data = b"".join(frames.encode(1, 0.0, [], [], [], {"failures": {"3": {"type": "ModelFailed"}}, "details": ["ü"]}))
    assert json.loads(json.dumps(frames.decode(data).note)) == {
        "failures": {"3": {"type": "ModelFailed"}},
        "details": ["ü"],
    }
