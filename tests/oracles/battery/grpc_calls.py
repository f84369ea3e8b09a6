"""gRPC calls that work: health, metadata, and every data type typed and raw."""

from __future__ import annotations

import struct
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from ..case import Case, grpc
from .bodies import TINY_ROWS
from .grpc_bodies import FIELDS, INFER, SERVICE, identity, request, simple_raw, simple_typed, tensor
from .rest_binary import _TYPES as RAW
from .rest_binary import text_blob

_TYPED: dict[str, Any] = {
    "BOOL": [True, False, True],
    "UINT8": [0, 1, 255],
    "UINT16": [0, 1, 65535],
    "UINT32": [0, 1, 2**32 - 1],
    "UINT64": [0, 1, 2**64 - 1],
    "INT8": [-128, 0, 127],
    "INT16": [-(2**15), 0, 2**15 - 1],
    "INT32": [-(2**31), 0, 2**31 - 1],
    "INT64": [-(2**63), 0, 2**63 - 1],
    "FP32": [0.1, float("nan"), float("-inf")],
    "FP64": [0.1, float("nan"), float("inf")],
    "BYTES": [b"", b"text", b"\xff\xfe"],
}


def _parameter(**value: Any) -> Any:
    return pb.InferParameter(**value)


def _output(name: str, **parameters: Any) -> Any:
    return pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)


def _types() -> list[Case]:
    cases = []
    for datatype, values in _TYPED.items():
        typed = identity(datatype, [1, 3], field=FIELDS[datatype], values=values)
        cases += [
            grpc(f"grpc types: {datatype} typed", INFER, typed),
            grpc(f"grpc types: {datatype} raw", INFER, identity(datatype, [1, 3], RAW[datatype])),
            grpc(f"grpc types: {datatype} raw, zero elements", INFER, identity(datatype, [1, 0], b"")),
        ]
    return cases


_NAMES = (
    ("known", "simple", ""),
    ("known, with version", "simple", "1"),
    ("unknown", "nobody", ""),
    ("unknown version", "simple", "99"),
    ("version is a word", "simple", "abc"),
    ("version negative", "simple", "-1"),
    ("version with leading zeros", "simple", "01"),
    ("no name", "", ""),
    ("two outputs", "tiny", ""),
    ("no row axis", "vector", ""),
    ("half floats", "identity_fp16", ""),
)

CASES: tuple[Case, ...] = (
    grpc("grpc: server live", SERVICE + "ServerLive", pb.ServerLiveRequest()),
    grpc("grpc: server ready", SERVICE + "ServerReady", pb.ServerReadyRequest()),
    grpc("grpc: server metadata", SERVICE + "ServerMetadata", pb.ServerMetadataRequest()),
    *(
        grpc(f"grpc metadata: {what}", SERVICE + "ModelMetadata", pb.ModelMetadataRequest(name=name, version=version))
        for what, name, version in _NAMES
    ),
    *(
        grpc(f"grpc ready: {what}", SERVICE + "ModelReady", pb.ModelReadyRequest(name=name, version=version))
        for what, name, version in _NAMES[:8]
    ),
    grpc("grpc: health of the server", "/grpc.health.v1.Health/Check", b"", oracles=("triton",)),
    grpc("grpc: health of the service", "/grpc.health.v1.Health/Check",
         b"\x0a\x1einference.GRPCInferenceService", oracles=("triton",)),
    grpc("grpc: no such method", SERVICE + "Nobody", b""),
    grpc("grpc: no such service", "/nobody.Nobody/Nobody", b""),
    grpc("grpc: metadata from broken bytes", SERVICE + "ModelMetadata", b"\xff\xff\xff"),
    grpc("grpc: live with an unknown field", SERVICE + "ServerLive", b"\xfa\x3e\x01a"),
    *_types(),
    grpc("grpc types: FP16 raw", INFER, identity("FP16", [1, 3], RAW["FP16"])),
    grpc("grpc types: BYTES raw, not text", INFER, identity("BYTES", [1, 2], text_blob(b"\xff\xfe", b""))),
    grpc("grpc infer: raw", INFER, simple_raw()),
    grpc("grpc infer: typed", INFER, simple_typed()),
    grpc("grpc infer: raw, eight rows", INFER, simple_raw(8)),
    grpc("grpc infer: raw, nine rows", INFER, simple_raw(9)),
    grpc("grpc infer: with an id", INFER, simple_raw(id="a1")),
    grpc("grpc infer: with an id in unicode", INFER, simple_raw(id="\u20ac\U0001f600")),
    grpc("grpc infer: with a version", INFER, simple_raw(model_version="1")),
    grpc("grpc infer: first output", INFER, simple_raw(outputs=[_output("OUTPUT0")])),
    grpc("grpc infer: both outputs reversed", INFER, simple_raw(outputs=[_output("OUTPUT1"), _output("OUTPUT0")])),
    grpc("grpc infer: an output twice", INFER, simple_raw(outputs=[_output("OUTPUT0"), _output("OUTPUT0")])),
    grpc("grpc infer: an output with a parameter", INFER,
         simple_raw(outputs=[_output("OUTPUT0", colour=_parameter(string_param="blue"))])),
    grpc("grpc infer: parameters", INFER,
         simple_raw(parameters={"a": _parameter(string_param="b"), "n": _parameter(int64_param=-3),
                                "yes": _parameter(bool_param=True)})),
    grpc("grpc infer: a double parameter", INFER, simple_raw(parameters={"x": _parameter(double_param=1.5)})),
    grpc("grpc infer: a uint64 parameter", INFER, simple_raw(parameters={"n": _parameter(uint64_param=2**64 - 1)})),
    grpc("grpc infer: priority", INFER, simple_raw(parameters={"priority": _parameter(uint64_param=1)})),
    grpc("grpc infer: no row axis", INFER,
         request("vector", [tensor("INPUT0", "FP32", [3])], struct.pack("<3f", 1, 2, 3))),
    grpc("grpc infer: no row axis, empty", INFER, request("vector", [tensor("INPUT0", "FP32", [0])], b"")),
    grpc("grpc infer: two outputs of two types", INFER,
         request("tiny", [tensor("x", "FP32", [2, 4])], struct.pack("<8f", *TINY_ROWS[0], *TINY_ROWS[1]))),
    grpc("grpc infer: a model that raises", INFER, request("raises", [tensor("x", "FP32", [1, 1])], b"\0\0\0\0")),
    grpc("grpc infer: inputs in the other order", INFER,
         request("simple", [tensor("INPUT1", "INT32", [1, 16]), tensor("INPUT0", "INT32", [1, 16])],
                 b"\1\0\0\0" * 16, b"\2\0\0\0" * 16)),
    grpc("grpc infer: an unknown field", INFER, simple_raw().SerializeToString() + b"\xfa\x3e\x01a"),
    grpc("grpc infer: request compressed with gzip", INFER, simple_raw(8), compression="gzip"),
    grpc("grpc infer: request compressed with deflate", INFER, simple_raw(8), compression="deflate"),
)  # fmt: skip
