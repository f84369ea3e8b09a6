"""ModelInfer requests as tritonclient's own protobuf writes them, decoded; and every rule a strict client checks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from tests.protocols.grpc_requests import iris, request
from tests.protocols.grpc_serving import ANY, IRIS, SERVING, Fixed, Served, arrays, same
from turnout.core.errors import InvalidInput, ModelNotFound, Unsupported, VersionNotFound
from turnout.core.messages import Context, InferRequest, Journey
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array
from turnout.protocols.v2_grpc_contents import LISTS
from turnout.protocols.v2_grpc_infer import ModelInferCodec

CODEC = ModelInferCodec()


def decode(message: pb.ModelInferRequest | bytes, codec: ModelInferCodec = CODEC) -> InferRequest:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return codec.decode(data, SERVING, Context())[1]


def refused(message: pb.ModelInferRequest | bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        decode(message)
    return caught.value


@given(arrays(), st.booleans())
def test_every_type_and_shape_arrives_as_it_was_sent_raw(sent: tuple[str, Array], as_view: bool) -> None:
    datatype, array = sent
    data = request(f"any-{datatype}-{array.ndim}", ("x", datatype, array)).SerializeToString()
    decoded = CODEC.decode(memoryview(bytearray(data)) if as_view else data, SERVING, Context())[1]
    assert same(decoded.inputs["x"], array)


@given(arrays(datatypes=sorted(LISTS)))
def test_every_type_and_shape_arrives_as_it_was_sent_typed(sent: tuple[str, Array]) -> None:
    datatype, array = sent
    if datatype in ("FP32", "FP64"):
        array = np.nan_to_num(array)  # a list does not keep the bits of a NaN
    decoded = decode(request(f"any-{datatype}-{array.ndim}", ("x", datatype, array), raw=False))
    assert same(decoded.inputs["x"], array)


@given(st.text(max_size=300), st.integers(1, 5), st.booleans(), st.lists(st.sampled_from(["label", "p"]), max_size=3))
def test_a_remembered_head_gives_what_a_fresh_one_gives(
    request_id: str, rows: int, by_version: bool, outputs: list[str]
) -> None:
    remembering = ModelInferCodec()
    for seed in range(3):
        values = np.random.default_rng(seed).random((rows, 4), dtype=np.float32)
        message = request("iris", ("x", "FP32", values), id=request_id + "é" * seed)
        if by_version:
            message.model_version = "1"
        for name in outputs:
            message.outputs.add(name=name)
        message.parameters["k"].int64_param = 7
        data = message.SerializeToString(deterministic=True)
        again, fresh = (codec.decode(data, SERVING, Context())[1] for codec in (remembering, ModelInferCodec()))
        assert same(again.inputs["x"], values)
        assert again.rows == fresh.rows == rows
        assert again._replace(inputs={}) == fresh._replace(inputs={})
        assert again.context.id == message.id
        assert again.outputs == tuple(dict.fromkeys(outputs))
        assert again.parameters == {"k": 7}


def test_a_large_tensor_is_a_view_into_the_message() -> None:
    array = np.random.default_rng(0).random((1000, 4), dtype=np.float32)
    data = request("iris", ("x", "FP32", array)).SerializeToString()
    decoded = decode(data)
    assert same(decoded.inputs["x"], array)
    assert np.shares_memory(decoded.inputs["x"], np.frombuffer(data, np.uint8))


def test_fields_in_another_order_and_unknown_ones_are_read_too() -> None:
    usual = iris(id="a")
    tensors = pb.ModelInferRequest(raw_input_contents=usual.raw_input_contents).SerializeToString()
    head = pb.ModelInferRequest(model_name="iris", id="b", inputs=usual.inputs).SerializeToString()
    unknown = b"\xa2\x06\x03abc"  # field 100
    decoded = decode(tensors + unknown + head + pb.ModelInferRequest(id="c").SerializeToString())
    assert decoded.context.id == "c"
    assert same(decoded.inputs["x"], np.arange(8, dtype=np.float32).reshape(2, 4))


def test_what_the_door_knows_of_the_request_stays_with_it() -> None:
    door = Context("made-by-the-door", 12.5, "grpc", "alice", None, Journey())
    assert CODEC.decode(iris(id="mine").SerializeToString(), SERVING, door)[1].context == ("mine", *door[1:])
    assert CODEC.decode(iris().SerializeToString(), SERVING, door)[1].context is door


def test_parameters_of_all_kinds() -> None:
    message = iris()
    message.parameters["flag"].bool_param = True
    message.parameters["count"].int64_param = -3
    message.parameters["name"].string_param = "ü"
    message.parameters["ratio"].double_param = 0.25
    message.parameters["priority"].uint64_param = 2**64 - 1
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    assert decode(message).parameters == {
        "flag": True, "count": -3, "name": "ü", "ratio": 0.25, "priority": 2**64 - 1,
        "triton_enable_empty_final_response": True,
    }  # fmt: skip


def test_a_parameter_without_a_value_and_a_reserved_one_are_refused() -> None:
    message = iris()
    message.parameters["empty"].SetInParent()
    assert refused(message).field == "parameters['empty']"
    message = iris()
    message.parameters["triton_x"].int64_param = 1
    assert "reserved" in str(refused(message))
    message = iris()
    message.parameters["sequence_id"].string_param = "s"
    with pytest.raises(Unsupported, match="sequences"):
        decode(message)
    message = iris()
    message.inputs[0].parameters["empty"].SetInParent()
    assert refused(message).field == "inputs[0].parameters['empty']"


def test_the_model_and_its_version() -> None:
    assert decode(iris(model_version="1")).version == decode(iris()).version == "1"
    with pytest.raises(ModelNotFound, match="nobody"):
        decode(request("nobody"))
    with pytest.raises(VersionNotFound):
        decode(iris(model_version="9"))
    for version in ("abc", "-1", "1.5", "²"):
        assert refused(iris(model_version=version)).field == "model_version"
    assert refused(pb.ModelInferRequest()).field == "model_name"
    dated = Fixed(Served("iris", IRIS.signature, version="2024-w7"))
    assert CODEC.decode(iris(model_version="2024-w7").SerializeToString(), dated, Context())[0].version == "2024-w7"


def _changed(change: Any, **fields: Any) -> pb.ModelInferRequest:
    message = iris(**fields)
    change(message)
    return message


X = np.zeros((1, 4), np.float32)
REFUSALS: dict[str, tuple[pb.ModelInferRequest, str, str]] = {
    "no input": (request("iris"), "inputs", "'x' is missing"),
    "another name": (request("iris", ("y", "FP32", X)), "inputs", "'x' is missing"),
    "one too many": (request("iris", ("x", "FP32", X), ("y", "FP32", X)), "inputs", "no input 'y'"),
    "twice": (request("iris", ("x", "FP32", X), ("x", "FP32", X)), "inputs[1].name", "twice"),
    "nameless": (request("iris", ("", "FP32", X)), "inputs[0].name", "name"),
    "type": (request("iris", ("x", "FP64", X.astype(float))), "inputs[0]", "expected FP32; got FP64"),
    "type in lower case": (request("iris", ("x", "fp32", X)), "inputs[0].datatype", "got 'fp32'"),
    "BF16": (request("iris", ("x", "BF16", X)), "inputs[0].datatype", "got 'BF16'"),
    "columns": (request("iris", ("x", "FP32", X[:, :3])), "inputs[0]", "expected [-1, 4]; got [1, 3]"),
    "rank": (request("iris", ("x", "FP32", X[0])), "inputs[0]", "got [4]"),
    "no rows": (request("iris", ("x", "FP32", X[:0])), "inputs", "at least one row"),
    "no elements": (_changed(lambda m: m.ClearField("raw_input_contents")), "inputs[0].contents", "raw_input_contents"),
    "too few bytes": (
        _changed(lambda m: m.raw_input_contents.__setitem__(0, bytes(31))), "raw_input_contents[0]",
        "expected 32 bytes; got 31 bytes",
    ),
    "too many bytes": (
        _changed(lambda m: m.raw_input_contents.__setitem__(0, bytes(33))), "raw_input_contents[0]", "got 33 bytes",
    ),
    "one raw too many": (
        _changed(lambda m: m.raw_input_contents.append(bytes(32))), "raw_input_contents", "expected 1; got 2",
    ),
    "one raw too few": (
        _changed(lambda m: m.inputs.add(name="y", datatype="FP32", shape=[1])), "raw_input_contents",
        "expected 2; got 1",
    ),
    "raw and typed": (_changed(lambda m: m.inputs[0].contents.fp32_contents.extend([1.0] * 8)), "inputs", "contents"),
    "raw and empty typed": (_changed(lambda m: m.inputs[0].contents.SetInParent()), "inputs", "contents"),
    "negative length": (_changed(lambda m: m.inputs[0].shape.__setitem__(0, -1)), "inputs[0].shape", "got [-1, 4]"),
    "unknown output": (_changed(lambda m: m.outputs.add(name="z")), "outputs[0].name", "one of 'label', 'p'"),
    "nameless output": (_changed(lambda m: m.outputs.add()), "outputs[0].name", "name"),
    "rank 33": (request("iris", ("x", "FP32", X.reshape((1,) * 32 + (4,)))), "inputs[0].shape", "at most 32"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_each_mistake_is_named(name: str) -> None:
    message, field, says = REFUSALS[name]
    problem = refused(message)
    assert problem.field == field
    assert says in str(problem)


TYPED_REFUSALS: dict[str, tuple[str, list[int], dict[str, list[Any]], str]] = {
    "wrong list": ("FP32", [1], {"fp64_contents": [1.0]}, "expected fp32_contents; got fp64_contents"),
    "two lists": ("INT8", [1], {"int_contents": [1], "uint_contents": [1]}, "expected int_contents; got uint_contents"),
    "too few": ("INT64", [3], {"int64_contents": [1, 2]}, "expected 3; got 2"),
    "too many": ("BYTES", [1], {"bytes_contents": [b"a", b"b"]}, "expected 1; got 2"),
    "none": ("INT64", [3], {"int64_contents": []}, "int64_contents: wrong number"),
    "INT8 above": (
        "INT8",
        [2],
        {"int_contents": [1, 128]},
        "int_contents[1]: out of range for INT8; expected -128 to 127",
    ),
    "INT16 below": ("INT16", [1], {"int_contents": [-32769]}, "got -32769"),
    "UINT8 above": ("UINT8", [1], {"uint_contents": [256]}, "expected 0 to 255; got 256"),
    "UINT16 above": ("UINT16", [1], {"uint_contents": [65536]}, "got 65536"),
    "FP16": ("FP16", [2], {"fp32_contents": [1.0, 2.0]}, "expected 4 bytes in raw_input_contents"),
}


@pytest.mark.parametrize("name", TYPED_REFUSALS)
def test_each_mistake_in_typed_contents_is_named(name: str) -> None:
    datatype, shape, lists, says = TYPED_REFUSALS[name]
    message = pb.ModelInferRequest(model_name=f"any-{datatype}-1")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in lists.items():
        getattr(tensor.contents, field).extend(values)
    tensor.contents.SetInParent()
    assert says in str(refused(message))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\x01\x00\x00", "cut off"),
        (b"\x05\x00\x00\x00ab", "says 5 bytes and 2 are left"),
        (b"\x01\x00\x00\x00a", "1 BYTES elements for shape [2]"),
        (b"", "0 BYTES elements for shape [2]"),
        (b"\xff\xff\xff\xffab", "are left"),
    ],
)
def test_malformed_bytes_elements(raw: bytes, says: str) -> None:
    message = pb.ModelInferRequest(model_name="any-BYTES-1", raw_input_contents=[raw])
    message.inputs.add(name="x", datatype="BYTES", shape=[2])
    problem = refused(message)
    assert problem.field == "raw_input_contents[0]"
    assert says in str(problem)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
@pytest.mark.parametrize("shape", [[0, 2**62], [2**62, 2**62, 0], [2**40, 2**40, 1]])
@pytest.mark.parametrize("raw", [True, False])
def test_shapes_that_no_array_has(datatype: str, shape: list[int], raw: bool) -> None:
    message = pb.ModelInferRequest(model_name=f"any-{datatype}-{len(shape)}")
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    if raw:
        message.raw_input_contents.append(b"")
    refused(message)


def test_an_empty_tensor_needs_no_contents() -> None:
    message = pb.ModelInferRequest(model_name="any-FP32-2")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 0])
    assert decode(message).inputs["x"].shape == (1, 0)


@pytest.mark.parametrize("place", ["inputs", "outputs"])
def test_shared_memory_is_not_offered(place: str) -> None:
    message = iris()
    message.outputs.add(name="p")
    getattr(message, place)[0].parameters["shared_memory_region"].string_param = "region"
    with pytest.raises(Unsupported, match="send raw_input_contents"):
        decode(message)


def test_classification_is_not_offered_but_asking_for_none_is_fine() -> None:
    message = iris()
    message.outputs.add(name="p").parameters["classification"].int64_param = 0
    assert decode(message).outputs == ("p",)
    message.outputs[0].parameters["classification"].int64_param = 2
    with pytest.raises(Unsupported, match="classification"):
        decode(message)


@pytest.mark.parametrize("served", [IRIS, *ANY], ids=lambda served: served.name)
def test_the_example_in_a_failure_works(served: Served) -> None:
    message = pb.ModelInferRequest(model_name=served.name)
    message.inputs.add(name="another", datatype="FP32", shape=[1], contents={"fp32_contents": [1.0]})
    if served.signature.inputs[0].datatype == "FP16":
        assert "raw_input_contents of 2 bytes" in refused(message).example
        return
    example = text_format.Parse(refused(message).example, pb.ModelInferRequest())
    assert decode(example).rows == 1


def test_the_example_of_a_wide_model_gives_sizes() -> None:
    wide = Served("wide", Signature((TensorSpec("x", "FP32", (-1, 784)), TensorSpec("t", "BYTES", (-1, 1))), ()))
    with pytest.raises(InvalidInput) as caught:
        CODEC.decode(request("wide").SerializeToString(), Fixed(wide), Context())
    assert caught.value.example.endswith("with raw_input_contents of 3136, 1 x (4 + length) bytes")


def test_what_is_remembered_is_bounded() -> None:
    codec = ModelInferCodec()
    for rows in range(1, 700):
        decode(request("iris", ("x", "FP32", np.zeros((rows, 4), np.float32))), codec)
        decode(request("iris", ("x", "FP32", np.zeros((1, 4), np.float32)), raw=False), codec)
    assert len(codec._heads) <= 256
    message = iris()
    message.parameters["long"].string_param = "x" * 5000
    codec = ModelInferCodec()
    decode(message, codec)
    assert not codec._heads
