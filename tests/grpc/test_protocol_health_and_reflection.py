"""The clients of grpcio-health-checking and grpcio-reflection, unchanged, against the real door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.grpc.protocol_server import WEIGHTS, Running, running
from turnout.core.servable import State

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def server() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def channel(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as found:
        yield found


def test_health_check(server: Running, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)

    def status(service: str) -> int:
        return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status

    assert status("") == status("linear") == status("inference.GRPCInferenceService") == SERVING
    model: Any = server.models.find("linear")
    model.state = State.STARTING
    assert status("") == status("linear") == NOT_SERVING
    assert status("broken") == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        status("nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_watch_follows_a_model(server: Running, channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    model: Any = server.models.find("linear")
    answers = health.Watch(health_pb2.HealthCheckRequest(service="linear"), timeout=30)
    assert next(answers).status == SERVING
    model.state = State.FAILED
    assert next(answers).status == NOT_SERVING
    model.state = State.READY
    assert next(answers).status == SERVING
    server.models.served.remove(model)
    assert next(answers).status == UNKNOWN
    answers.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_health_watch_ends_at_its_deadline(channel: grpc.Channel) -> None:
    answers = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="linear"), timeout=0.3)
    assert next(answers).status == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_that_knows_only_reflection_gets_a_prediction(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "inference.GRPCInferenceService" in database.get_services()
    pool = DescriptorPool(database)
    method = pool.FindServiceByName("inference.GRPCInferenceService").FindMethodByName("ModelInfer")
    request_type: Any = message_factory.GetMessageClass(method.input_type)
    response_type: Any = message_factory.GetMessageClass(method.output_type)
    sent = np.arange(4, dtype=np.float32).reshape(1, 4)
    request = request_type(model_name="linear", raw_input_contents=[sent.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=request_type.SerializeToString,
        response_deserializer=response_type.FromString,
    )
    response = call(request, timeout=10)
    scores = np.frombuffer(response.raw_output_contents[0], np.float32)
    np.testing.assert_array_equal(scores.reshape(1, 3), sent @ WEIGHTS)


def test_a_message_that_is_none_is_a_callers_mistake(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "the message could not be read as protobuf; expected a serialized inference.ModelInferRequest; got 3 bytes"
    )
