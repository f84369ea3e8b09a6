"""Extensions of the protocol that some servers have: repository, configuration, statistics, shared memory ..."""

from __future__ import annotations

from tritonclient.grpc import service_pb2 as pb

from ..case import Case, grpc, http
from .bodies import SIMPLE, simple
from .grpc_bodies import SERVICE

_GET = (
    ("configuration", "/v2/models/simple/config"),
    ("configuration, unknown model", "/v2/models/nobody/config"),
    ("log settings", "/v2/logging"),
    ("trace settings", "/v2/trace/setting"),
    ("shared memory", "/v2/systemsharedmemory/status"),
    ("shared memory of a GPU", "/v2/cudasharedmemory/status"),
)

_INDEX = "/v2/repository/index"

CASES: tuple[Case, ...] = (
    *(http(f"extensions: {name}", "GET", target) for name, target in _GET),
    http("extensions: generate", "POST", "/v2/models/identity_bytes/generate", {"INPUT0": "a"}),
    http("extensions: index", "POST", _INDEX),
    http("extensions: index, empty object", "POST", _INDEX, {}),
    http("extensions: index, only ready ones", "POST", _INDEX, {"ready": True}),
    http("extensions: index, broken json", "POST", _INDEX, "{"),
    http("extensions: index, ready is a word", "POST", _INDEX, {"ready": "yes"}),
    http("extensions: index by get", "GET", _INDEX),
    http("extensions: load an unknown model", "POST", "/v2/repository/models/nobody/load", {}),
    http("extensions: unload an unknown model", "POST", "/v2/repository/models/nobody/unload", {}),
    http("extensions: classification", "POST", SIMPLE,
         simple(outputs=[{"name": "OUTPUT0", "parameters": {"classification": 2}}])),
    http("extensions: classification of none", "POST", SIMPLE,
         simple(outputs=[{"name": "OUTPUT0", "parameters": {"classification": 0}}])),
    http("extensions: an input in shared memory", "POST", SIMPLE,
         simple(first={"data": None, "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 64}})),
    http("extensions: an output in shared memory", "POST", SIMPLE,
         simple(outputs=[{"name": "OUTPUT0",
                          "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 64}}])),
    grpc("grpc extensions: index", SERVICE + "RepositoryIndex", pb.RepositoryIndexRequest()),
    grpc("grpc extensions: index, only ready ones", SERVICE + "RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
    grpc("grpc extensions: configuration", SERVICE + "ModelConfig", pb.ModelConfigRequest(name="nobody")),
    grpc("grpc extensions: shared memory", SERVICE + "SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
    grpc("grpc extensions: log settings", SERVICE + "LogSettings", pb.LogSettingsRequest()),
    grpc("grpc extensions: load an unknown model", SERVICE + "RepositoryModelLoad",
         pb.RepositoryModelLoadRequest(model_name="nobody")),
)  # fmt: skip
