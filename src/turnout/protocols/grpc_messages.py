"""The protobuf messages of the gRPC protocols, out of a descriptor pool of their own.

tritonclient, kserve and others each register a package `inference` in protobuf's default pool, and two of
them in one process is an error there. A private pool clashes with nobody, so a served model may import
any of them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from turnout.core.errors import InvalidInput

#: The compiled .proto files of this folder; `tools/compile_protos.py` makes it.
DESCRIPTORS = "grpc_descriptors.binpb"

_FILES = descriptor_pb2.FileDescriptorSet.FromString(files("turnout.protocols").joinpath(DESCRIPTORS).read_bytes()).file

#: Holds the files of this folder and nothing else.
POOL: Any = descriptor_pool.DescriptorPool()
for _file in _FILES:
    POOL.AddSerializedFile(_file.SerializeToString())

#: The full names of the services in these files, in alphabetical order.
SERVICES: tuple[str, ...] = tuple(
    sorted(f"{file.package}.{service.name}" for file in _FILES for service in file.service)
)


def message_class(full_name: str) -> Any:
    """The class of a message by its full name, such as `inference.ModelInferRequest`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


def parse(message_type: Any, message: bytes | memoryview) -> Any:
    """The message in these bytes. Raises InvalidInput where they are no such message."""
    try:
        return message_type.FromString(message)
    except DecodeError:
        name = message_type.DESCRIPTOR.full_name
        raise InvalidInput(
            "the message could not be read as protobuf", expected=f"a serialized {name}", got=f"{len(message)} bytes"
        ) from None
