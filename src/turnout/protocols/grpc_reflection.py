"""gRPC server reflection, v1 and v1alpha: what grpcurl and others ask to call this server without a .proto file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from turnout.core.errors import Code
from turnout.core.servable import Serving
from turnout.protocols.grpc_messages import POOL, SERVICES, message_class, parse


class Reflection:
    """ServerReflectionInfo of one version of the protocol: each request is answered in its turn."""

    def __init__(self, package: str) -> None:
        self._request = message_class(f"{package}.ServerReflectionRequest")
        self._response = message_class(f"{package}.ServerReflectionResponse")

    async def __call__(self, messages: AsyncIterator[bytes], _serving: Serving) -> AsyncIterator[bytes]:
        async for message in messages:
            yield self.answer(message)

    def answer(self, message: bytes) -> bytes:
        """The response to one request. Raises InvalidInput where the message is none."""
        request = parse(self._request, message)
        response = self._response(valid_host=request.host, original_request=request)
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                for name in SERVICES:
                    response.list_services_response.service.add(name=name)
            elif kind == "file_by_filename":
                _write_files(response, POOL.FindFileByName(request.file_by_filename))
            elif kind == "file_containing_symbol":
                _write_files(response, _file_of(request.file_containing_symbol))
            elif kind == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                POOL.FindMessageTypeByName(name)
                response.all_extension_numbers_response.base_type_name = name
            elif kind == "file_containing_extension":
                _write_error(response, Code.NOT_FOUND, "no message here has extensions")
            else:
                _write_error(response, Code.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            _write_error(response, Code.NOT_FOUND, f"{getattr(request, kind)!r} is not known here")
        data: bytes = response.SerializeToString()
        return data


def _file_of(symbol: str) -> Any:
    """The file that defines a type, a service, or a method of one. Raises KeyError."""
    try:
        return POOL.FindFileContainingSymbol(symbol)
    except KeyError:  # not every protobuf finds a method by its name
        service = POOL.FindServiceByName(symbol.rpartition(".")[0])
        return service.methods_by_name[symbol.rpartition(".")[2]].containing_service.file


def _write_files(response: Any, file: Any) -> None:
    """The file and all that it imports, each before those that import it."""
    found: dict[str, bytes] = {}

    def visit(current: Any) -> None:
        for dependency in current.dependencies:
            visit(dependency)
        found.setdefault(current.name, current.serialized_pb)

    visit(file)
    response.file_descriptor_response.file_descriptor_proto.extend(found.values())


def _write_error(response: Any, code: Code, message: str) -> None:
    response.error_response.error_code = code.value
    response.error_response.error_message = message
