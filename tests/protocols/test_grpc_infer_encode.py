"""ModelInfer answers: byte for byte what protobuf would write, and what tritonclient reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb

from tests.protocols.grpc_requests import raw_bytes
from tests.protocols.grpc_serving import arrays, same
from turnout.core.errors import InvalidOutput
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.tensors import Array
from turnout.protocols.v2_grpc_infer import ModelInferCodec

CODEC = ModelInferCodec()


def encode(
    outputs: dict[str, Any], *, asked: tuple[str, ...] = (), request_id: str = "", **fields: Any
) -> tuple[bytes, list[Any]]:
    request = InferRequest("m", {}, 1, Context(), outputs=asked, reply=request_id)
    answer = CODEC.encode(
        request, InferResponse(outputs, fields.pop("model", "m"), fields.pop("version", "1"), **fields)
    )
    parts = [answer] if isinstance(answer, bytes) else answer
    return b"".join(parts), parts


def expected(model: str, version: str, request_id: str, tensors: dict[str, tuple[str, Array]]) -> bytes:
    message = pb.ModelInferResponse(model_name=model, model_version=version, id=request_id)
    for name, (datatype, array) in tensors.items():
        message.outputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_output_contents.append(raw_bytes(array))
    return message.SerializeToString()


@given(
    st.text(max_size=150),
    st.text(max_size=3),
    st.text(max_size=150),
    st.dictionaries(st.text(max_size=9), arrays(), max_size=3),
)
def test_the_bytes_are_those_that_protobuf_writes(
    model: str, version: str, request_id: str, tensors: dict[str, tuple[str, Array]]
) -> None:
    outputs = {name: array for name, (_, array) in tensors.items()}
    for _ in range(2):  # the second time, the head is remembered
        data, _ = encode(outputs, request_id=request_id, model=model, version=version)
        assert data == expected(model, version, request_id, tensors)


@given(st.lists(st.sampled_from([1, 100, 4095, 4096, 16383, 16384, 16385, 70000, 3_000_000]), min_size=1, max_size=5))
def test_large_tensors_are_sent_as_they_are(sizes: list[int]) -> None:
    outputs = {f"o{i}": np.full(size, i, dtype=np.uint8) for i, size in enumerate(sizes)}
    data, parts = encode(outputs, request_id="id")
    assert data == expected("m", "1", "id", {name: ("UINT8", array) for name, array in outputs.items()})
    views = [part for part in parts if isinstance(part, memoryview)]
    assert [len(view) for view in views] == [size for size in sizes if size >= 16384]
    for view in views:
        assert any(np.shares_memory(np.frombuffer(view, np.uint8), array) for array in outputs.values())
    assert len(parts) <= 2 * len(views) + 1


def test_tritonclient_reads_every_type() -> None:
    outputs: dict[str, Array] = {
        name: np.array([[0, 1], [1, 0]], dtype=name)
        for name in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")
    }
    outputs |= {name: np.array([[0.5, np.nan], [-np.inf, 1]], dtype=name) for name in ("f2", "f4", "f8")}
    outputs["S"] = np.array([[b"a", b""], [b"\xff\x00", "ü".encode()]], dtype=object)
    result = InferResult(pb.ModelInferResponse.FromString(encode(outputs)[0]))
    for name, array in outputs.items():
        assert same(result.as_numpy(name), array)


def test_arrays_in_other_memory_orders_and_text_become_what_the_wire_wants() -> None:
    base = np.arange(6, dtype=np.float32).reshape(2, 3)
    text = np.array(["a", "ü"])
    result = InferResult(pb.ModelInferResponse.FromString(encode({"t": base.T, "b": base.astype(">f4"), "s": text})[0]))
    assert same(result.as_numpy("t"), np.ascontiguousarray(base.T))
    assert same(result.as_numpy("b"), base)
    assert result.as_numpy("s").tolist() == [b"a", "ü".encode()]


def test_only_what_was_asked_for_is_answered() -> None:
    outputs = {"a": np.ones(1, np.int32), "b": np.zeros(2, np.int32), "c": np.ones(3, np.int8)}
    message = pb.ModelInferResponse.FromString(encode(outputs, asked=("c", "a"))[0])
    assert [output.name for output in message.outputs] == ["c", "a"]
    assert [len(raw) for raw in message.raw_output_contents] == [3, 4]


def test_an_output_the_model_did_not_give_or_that_has_no_data_type_is_the_models_fault() -> None:
    with pytest.raises(InvalidOutput, match="'z'"):
        encode({"a": np.ones(1)}, asked=("z",))
    with pytest.raises(InvalidOutput, match="'a'"):
        encode({"a": np.array(["2024-01-01"], dtype="datetime64[D]")})


def test_parameters_of_all_kinds() -> None:
    parameters = {"b": True, "i": -5, "u": 2**64 - 1, "s": "ü", "f": 0.5, "huge": 2**70}
    message = pb.ModelInferResponse.FromString(encode({}, parameters=parameters)[0])
    found = {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in message.parameters.items()}
    assert found == parameters | {"huge": str(2**70)}
    assert message.parameters["b"].WhichOneof("parameter_choice") == "bool_param"
    assert message.parameters["u"].WhichOneof("parameter_choice") == "uint64_param"


def test_what_is_remembered_is_bounded() -> None:
    codec = ModelInferCodec()
    for rows in range(1000):
        request = InferRequest("m", {}, 1, Context())
        codec.encode(request, InferResponse({"a": np.zeros((rows,), np.int8)}, f"m{rows}", "1"))
    assert len(codec._output_fields) <= 256
    assert len(codec._model_fields) <= 256
