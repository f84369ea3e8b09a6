"""The gRPC methods that need no prediction: read and written by other people's protobufs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2 as pb

import turnout
from tests.protocols.grpc_serving import IRIS, TWO, Fixed, Served
from turnout.core.errors import InvalidInput, ModelNotFound, Unsupported
from turnout.core.servable import Serving, State
from turnout.protocols import grpc_health
from turnout.protocols.grpc import GrpcMethod
from turnout.protocols.v2_grpc import GRPC_METHODS

METHODS = {method.path: method for method in GRPC_METHODS}
LOADING = Served("slow", IRIS.signature, state=State.WARMING, version="7")
BROKEN = Served("broken", IRIS.signature, state=State.FAILED, reason="no such file", version="")
OLD = Served("iris", IRIS.signature, state=State.DRAINING, version="0")
ALL = Fixed(IRIS, OLD, TWO, LOADING, BROKEN)
GOOD = Fixed(IRIS, TWO)


def call(name: str, message: Any, serving: Serving = ALL) -> bytes:
    """The answer of a method of the inference service to a serialized message."""
    method = METHODS[f"/inference.GRPCInferenceService/{name}"]
    assert method.answer is not None
    return method.answer(message.SerializeToString(), serving)


def test_every_method_has_one_way_to_be_answered_and_a_path_of_its_own() -> None:
    assert len(METHODS) == len(GRPC_METHODS)
    for method in GRPC_METHODS:
        assert [method.infer, method.answer, method.stream].count(None) == 2


def test_every_method_of_tritonclient_has_an_answer() -> None:
    theirs = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    assert {f"/inference.GRPCInferenceService/{method.name}" for method in theirs} <= set(METHODS)


def test_live_and_ready() -> None:
    assert pb.ServerLiveResponse.FromString(call("ServerLive", pb.ServerLiveRequest())).live
    assert pb.ServerReadyResponse.FromString(call("ServerReady", pb.ServerReadyRequest(), GOOD)).ready
    assert not pb.ServerReadyResponse.FromString(call("ServerReady", pb.ServerReadyRequest(), ALL)).ready


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("iris", "", True), ("iris", "1", True), ("iris", "0", False), ("iris", "9", False), ("slow", "", False),
     ("nobody", "", False), ("broken", "", False)],
)  # fmt: skip
def test_model_ready(name: str, version: str, ready: bool) -> None:
    answer = call("ModelReady", pb.ModelReadyRequest(name=name, version=version))
    assert pb.ModelReadyResponse.FromString(answer).ready is ready


def test_model_ready_refuses_what_no_version_can_be() -> None:
    with pytest.raises(InvalidInput, match=r"^version: .*got 'abc'"):
        call("ModelReady", pb.ModelReadyRequest(name="iris", version="abc"))
    with pytest.raises(InvalidInput, match=r"^name: "):
        call("ModelReady", pb.ModelReadyRequest())


def test_server_metadata() -> None:
    answer = pb.ServerMetadataResponse.FromString(call("ServerMetadata", pb.ServerMetadataRequest()))
    assert answer.name == "turnout"
    assert answer.version == turnout.__version__
    assert list(answer.extensions) == ["binary_tensor_data", "parameters"]


def test_model_metadata() -> None:
    answer = pb.ModelMetadataResponse.FromString(call("ModelMetadata", pb.ModelMetadataRequest(name="iris")))
    assert (answer.name, answer.platform, list(answer.versions)) == ("iris", "onnx", ["1", "0"])
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.inputs] == [("x", "FP32", [-1, 4])]
    assert [(t.name, t.datatype, list(t.shape)) for t in answer.outputs] == [
        ("label", "INT64", [-1]), ("p", "FP32", [-1, 3]),
    ]  # fmt: skip
    unversioned = pb.ModelMetadataResponse.FromString(call("ModelMetadata", pb.ModelMetadataRequest(name="broken")))
    assert list(unversioned.versions) == []
    with pytest.raises(ModelNotFound):
        call("ModelMetadata", pb.ModelMetadataRequest(name="nobody"))


def test_repository_index() -> None:
    answer = pb.RepositoryIndexResponse.FromString(call("RepositoryIndex", pb.RepositoryIndexRequest()))
    assert [(m.name, m.version, m.state, m.reason) for m in answer.models] == [
        ("iris", "1", "READY", ""), ("iris", "0", "UNLOADING", ""), ("two", "3", "READY", ""),
        ("slow", "7", "LOADING", ""), ("broken", "", "UNAVAILABLE", "no such file"),
    ]  # fmt: skip
    ready = pb.RepositoryIndexResponse.FromString(call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)))
    assert [m.name for m in ready.models] == ["iris", "two"]
    with pytest.raises(Unsupported, match="leave the field empty"):
        call("RepositoryIndex", pb.RepositoryIndexRequest(repository_name="r"))


@pytest.mark.parametrize(
    "name",
    ["RepositoryModelLoad", "RepositoryModelUnload", "ModelConfig", "ModelStatistics", "SystemSharedMemoryStatus",
     "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"],
)  # fmt: skip
def test_what_is_not_offered_says_so(name: str) -> None:
    with pytest.raises(Unsupported, match="not offered"):
        call(name, pb.ServerLiveRequest())


def stream(method: GrpcMethod, requests: list[bytes], serving: Serving = ALL) -> list[bytes]:
    """All answers of a streaming method to these messages."""

    async def collect() -> list[bytes]:
        assert method.stream is not None
        return [answer async for answer in method.stream(_aiter(requests), serving)]

    return asyncio.run(collect())


async def _aiter(items: list[bytes]) -> AsyncIterator[bytes]:
    for item in items:
        yield item


def test_infer_streams_are_not_offered() -> None:
    with pytest.raises(Unsupported, match="ModelInfer"):
        stream(METHODS["/inference.GRPCInferenceService/ModelStreamInfer"], [])


SERVING_ = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.parametrize(
    ("service", "serving", "status"),
    [("", GOOD, SERVING_), ("", ALL, NOT_SERVING), ("inference.GRPCInferenceService", GOOD, SERVING_),
     ("grpc.health.v1.Health", GOOD, SERVING_), ("iris", ALL, SERVING_), ("slow", ALL, NOT_SERVING)],
)  # fmt: skip
def test_health_check(service: str, serving: Serving, status: int) -> None:
    message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    assert health_pb2.HealthCheckResponse.FromString(grpc_health.check(message, serving)).status == status


def test_health_check_of_an_unknown_service() -> None:
    with pytest.raises(ModelNotFound):
        grpc_health.check(health_pb2.HealthCheckRequest(service="nobody").SerializeToString(), ALL)


def test_health_list() -> None:
    answer = grpc_health.HealthListResponse.FromString(grpc_health.list_services(b"", ALL))
    found = {name: response.status for name, response in answer.statuses.items()}
    assert found["iris"] == found["two"] == SERVING_
    assert found["slow"] == found["broken"] == found[""] == found["inference.GRPCInferenceService"] == NOT_SERVING


def test_health_watch_tells_each_change_once() -> None:
    model = Served("m", IRIS.signature, state=State.STARTING)
    steps: list[list[Any]] = [[], [], [model], [model], [model], [model], []]
    states = [State.STARTING, State.STARTING, State.STARTING, State.WARMING, State.READY, State.READY, State.READY]
    looks = 0

    class GoneAway(Exception):
        pass

    async def watch() -> list[int]:
        serving = Fixed()
        seen: list[int] = []

        async def pause() -> None:
            nonlocal looks
            looks += 1
            if looks == len(steps):
                raise GoneAway
            serving._models = tuple(steps[looks])
            model.state = states[looks]

        request = health_pb2.HealthCheckRequest(service="m").SerializeToString()
        with suppress(GoneAway):
            async for answer in grpc_health.watch(_aiter([request]), serving, pause):
                seen.append(health_pb2.HealthCheckResponse.FromString(answer).status)  # noqa: PERF401
        return seen

    assert asyncio.run(watch()) == [UNKNOWN, NOT_SERVING, SERVING_, UNKNOWN]


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_reflection(package: str) -> None:
    requests = [
        {"list_services": ""},
        {"file_containing_symbol": "inference.GRPCInferenceService"},
        {"file_containing_symbol": "inference.ModelInferRequest.InferInputTensor"},
        {"file_by_filename": "turnout/protocols/grpc_health.proto"},
        {"file_containing_symbol": "inference.GRPCInferenceService.ModelInfer"},
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {"file_by_filename": "nothing.proto"},
        {"file_containing_symbol": "nothing.At.All"},
        {"file_containing_extension": {"containing_type": "inference.ModelInferRequest", "extension_number": 1}},
        {"all_extension_numbers_of_type": "nothing"},
        {},
    ]
    messages = [reflection_pb2.ServerReflectionRequest(host="h", **fields) for fields in requests]
    method = METHODS[f"/{package}.ServerReflection/ServerReflectionInfo"]
    answers = [
        reflection_pb2.ServerReflectionResponse.FromString(answer)
        for answer in stream(method, [message.SerializeToString() for message in messages])
    ]
    assert [answer.original_request for answer in answers] == messages
    assert {answer.valid_host for answer in answers} == {"h"}
    assert {service.name for service in answers[0].list_services_response.service} == {
        "inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    for answer in answers[1:5]:
        assert len(answer.file_descriptor_response.file_descriptor_proto) == 1
    assert answers[5].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert [answer.error_response.error_code for answer in answers[6:]] == [5, 5, 5, 5, 3]


def test_reflection_of_what_is_no_message() -> None:
    with pytest.raises(InvalidInput):
        stream(METHODS["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"], [b"\xff"])
