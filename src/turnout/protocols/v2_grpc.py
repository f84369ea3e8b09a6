"""The Open Inference Protocol (v2) over gRPC, and the whole list of gRPC methods that this server answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from turnout import __version__
from turnout.core.errors import ModelNotFound, NotReady, Unsupported
from turnout.core.servable import Serving, State
from turnout.protocols import grpc_health
from turnout.protocols.grpc import GrpcAnswer, GrpcMethod, GrpcStream
from turnout.protocols.grpc_messages import message_class, parse
from turnout.protocols.grpc_reflection import Reflection
from turnout.protocols.v2_grpc_infer import ModelInferCodec, find
from turnout.protocols.v2_metadata import EXTENSIONS, REPOSITORY_STATE

SERVER_NAME = "turnout"

ServerLiveResponse = message_class("inference.ServerLiveResponse")
ServerReadyResponse = message_class("inference.ServerReadyResponse")
ModelReadyRequest = message_class("inference.ModelReadyRequest")
ModelReadyResponse = message_class("inference.ModelReadyResponse")
ServerMetadataResponse = message_class("inference.ServerMetadataResponse")
ModelMetadataRequest = message_class("inference.ModelMetadataRequest")
ModelMetadataResponse = message_class("inference.ModelMetadataResponse")
RepositoryIndexRequest = message_class("inference.RepositoryIndexRequest")
RepositoryIndexResponse = message_class("inference.RepositoryIndexResponse")


def server_live(_message: bytes | memoryview, _serving: Serving) -> bytes:
    """ServerLive: true, as there is an answer."""
    data: bytes = ServerLiveResponse(live=True).SerializeToString()
    return data


def server_ready(_message: bytes | memoryview, serving: Serving) -> bytes:
    """ServerReady: whether every model can answer."""
    data: bytes = ServerReadyResponse(ready=serving.ready).SerializeToString()
    return data


def model_ready(message: bytes | memoryview, serving: Serving) -> bytes:
    """ModelReady: whether one model can answer; false for one that is not served."""
    request = parse(ModelReadyRequest, message)
    try:
        ready = find(serving, request.name, request.version).state is State.READY
    except (ModelNotFound, NotReady):
        ready = False
    data: bytes = ModelReadyResponse(ready=ready).SerializeToString()
    return data


def server_metadata(_message: bytes | memoryview, _serving: Serving) -> bytes:
    """ServerMetadata: name, version and extensions."""
    data: bytes = ServerMetadataResponse(
        name=SERVER_NAME, version=__version__, extensions=EXTENSIONS
    ).SerializeToString()
    return data


def model_metadata(message: bytes | memoryview, serving: Serving) -> bytes:
    """ModelMetadata: inputs and outputs of one model, and the versions of it that are served."""
    request = parse(ModelMetadataRequest, message)
    served = find(serving, request.name, request.version)
    signature = served.signature
    response = ModelMetadataResponse(
        name=served.name,
        versions=[model.version for model in serving.models() if model.name == served.name and model.version],
        platform=served.format,
    )
    for target, specs in ((response.inputs, signature.inputs), (response.outputs, signature.outputs)):
        for spec in specs:
            target.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    data: bytes = response.SerializeToString()
    return data


def repository_index(message: bytes | memoryview, serving: Serving) -> bytes:
    """RepositoryIndex: every version that is served, with its state; on request only those that are ready."""
    request = parse(RepositoryIndexRequest, message)
    if request.repository_name:
        raise Unsupported("repository_name: there is one repository, and it has no name; leave the field empty")
    response = RepositoryIndexResponse()
    for model in serving.models():
        if model.state is State.READY or not request.ready:
            response.models.add(
                name=model.name, version=model.version, state=REPOSITORY_STATE[model.state], reason=model.reason
            )
    data: bytes = response.SerializeToString()
    return data


def not_offered(text: str) -> GrpcAnswer:
    """An answer that says what is not offered and what to use instead."""

    def answer(_message: bytes | memoryview, _serving: Serving) -> bytes:
        raise Unsupported(text)

    return answer


def no_stream(text: str) -> GrpcStream:
    """As `not_offered`, for a method whose sides are streams."""

    async def answer(_messages: AsyncIterator[bytes], _serving: Serving) -> AsyncIterator[bytes]:
        raise Unsupported(text)
        yield b""  # makes this an async generator

    return answer


_INFERENCE = "/inference.GRPCInferenceService/"
_HEALTH = "/grpc.health.v1.Health/"
_LOADING = "models are loaded when the server starts; loading and unloading by name is not offered"
_SHARED_MEMORY = "the shared-memory extensions are not offered; send raw_input_contents"

#: Every gRPC method that is answered, by its full path.
GRPC_METHODS: tuple[GrpcMethod, ...] = (
    GrpcMethod(f"{_INFERENCE}ServerLive", answer=server_live),
    GrpcMethod(f"{_INFERENCE}ServerReady", answer=server_ready),
    GrpcMethod(f"{_INFERENCE}ModelReady", answer=model_ready),
    GrpcMethod(f"{_INFERENCE}ServerMetadata", answer=server_metadata),
    GrpcMethod(f"{_INFERENCE}ModelMetadata", answer=model_metadata),
    GrpcMethod(f"{_INFERENCE}ModelInfer", infer=ModelInferCodec()),
    GrpcMethod(f"{_INFERENCE}RepositoryIndex", answer=repository_index),
    GrpcMethod(f"{_INFERENCE}RepositoryModelLoad", answer=not_offered(_LOADING)),
    GrpcMethod(f"{_INFERENCE}RepositoryModelUnload", answer=not_offered(_LOADING)),
    GrpcMethod(
        f"{_INFERENCE}ModelStreamInfer",
        stream=no_stream(
            "ModelStreamInfer is not offered; ModelInfer calls share a connection without waiting for each other"
        ),
    ),
    GrpcMethod(
        f"{_INFERENCE}ModelConfig",
        answer=not_offered("ModelConfig is not offered; ModelMetadata tells inputs and outputs"),
    ),
    GrpcMethod(
        f"{_INFERENCE}ModelStatistics",
        answer=not_offered("ModelStatistics is not offered; GET /metrics over HTTP has the figures"),
    ),
    *(
        GrpcMethod(f"{_INFERENCE}{kind}SharedMemory{verb}", answer=not_offered(_SHARED_MEMORY))
        for kind in ("System", "Cuda")
        for verb in ("Status", "Register", "Unregister")
    ),
    GrpcMethod(f"{_INFERENCE}TraceSetting", answer=not_offered("the trace extension is not offered")),
    GrpcMethod(f"{_INFERENCE}LogSettings", answer=not_offered("the logging extension is not offered")),
    GrpcMethod(f"{_HEALTH}Check", answer=grpc_health.check),
    GrpcMethod(f"{_HEALTH}List", answer=grpc_health.list_services),
    GrpcMethod(f"{_HEALTH}Watch", stream=grpc_health.watch),
    GrpcMethod("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", stream=Reflection("grpc.reflection.v1")),
    GrpcMethod(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        stream=Reflection("grpc.reflection.v1alpha"),
    ),
)
