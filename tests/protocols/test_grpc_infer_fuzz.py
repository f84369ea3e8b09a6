"""Damaged ModelInfer messages: a typed failure or an answer, and the same as protobuf alone would give."""

from __future__ import annotations

import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from tests.protocols.grpc_requests import iris, request
from tests.protocols.grpc_serving import SERVING, arrays, same
from turnout.core.errors import Failure, Fault
from turnout.core.messages import Context, InferRequest
from turnout.protocols.v2_grpc_infer import ModelInferCodec
from turnout.protocols.v2_grpc_wire import split

CODEC = ModelInferCodec()


def outcome(data: bytes) -> InferRequest | str:
    """The decoded request, or the failure's text. Anything but a failure of the caller's comes out as it is."""
    try:
        return CODEC.decode(data, SERVING, Context())[1]
    except Failure as failure:
        return str(failure) if failure.fault is Fault.CALLER else f"{failure.fault}: {failure}"


def seeds() -> list[bytes]:
    full = iris(id="abc", model_version="1")
    full.parameters["k"].string_param = "v"
    full.outputs.add(name="p").parameters["binary_data"].bool_param = True
    both = request(
        "two", ("a", "INT32", np.ones((2, 2), np.int32)), ("b", "BYTES", np.array([b"x", b"yz"], dtype=object)), id="é"
    )
    typed = request("any-INT8-2", ("x", "INT8", np.ones((2, 3), np.int8)), raw=False)
    return [message.SerializeToString() for message in (full, both, typed, iris())]


def assert_same_as_protobuf_alone(data: bytes) -> None:
    """`data` as it is, and as protobuf reads it and writes it again, decode to the same."""
    ours = outcome(data)
    assert not str(ours).startswith("Fault.")
    try:
        parsed = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        assert isinstance(ours, str)
        return
    parsed.DiscardUnknownFields()
    theirs = outcome(parsed.SerializeToString())
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs
        return
    assert ours._replace(inputs={}) == theirs._replace(inputs={})
    assert all(same(array, theirs.inputs[name]) for name, array in ours.inputs.items())


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages(seed: int) -> None:
    rng = random.Random(seed)
    sources = seeds()
    for _ in range(5000):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randint(1, 3)):
            kind = rng.randrange(5)
            at = rng.randrange(len(data)) if data else 0
            if kind == 0 and data:
                data[at] = rng.choice((0, 1, 2, 0x3A, 0x1A, 0x0A, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            elif kind == 1:
                data.insert(at, rng.randrange(256))
            elif kind == 2 and data:
                del data[at]
            elif kind == 3:
                del data[at:]
            else:
                other = rng.choice(sources)
                start = rng.randrange(len(other))
                data[at:at] = other[start : start + rng.randrange(1, 40)]
        assert_same_as_protobuf_alone(bytes(data))


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x3a")
@example(b"\x3a\x80")
@example(b"\x3a\x80\x80\x80\x80\x80\x80\x01")
@example(b"\x1a\x01\xff")
@example(b"\x0a\x04iris\x1a\x01a\x1a\x01b")
@example(b"\x3a\xff\xff\xff\xff\x0f")
def test_any_bytes(data: bytes) -> None:
    assert_same_as_protobuf_alone(data)


@given(arrays(), st.text(max_size=40), st.integers(0, 200))
def test_cut_off_anywhere(sent: tuple[str, np.ndarray], request_id: str, cut: int) -> None:
    datatype, array = sent
    data = request(f"any-{datatype}-{array.ndim}", ("x", datatype, array), id=request_id).SerializeToString()
    assert_same_as_protobuf_alone(data[: max(0, len(data) - cut)])


@given(st.text(max_size=200), st.lists(st.binary(max_size=300), max_size=4), st.text(max_size=20))
def test_the_pieces_put_together_are_the_message(model: str, raws: list[bytes], request_id: str) -> None:
    message = pb.ModelInferRequest(model_name=model, id=request_id, raw_input_contents=raws)
    data = message.SerializeToString()
    pieces = split(data)
    assert pieces is not None
    head = pb.ModelInferRequest.FromString(pieces.head)
    assert (head.model_name, head.id, len(head.raw_input_contents)) == (model, "", 0)
    assert pieces.id == request_id
    assert [data[start:stop] for start, stop in pieces.raws] == raws
