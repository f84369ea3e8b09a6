"""The head of a ModelInferRequest: everything but its id and its raw tensors, checked by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from turnout.core.errors import InvalidInput, Unsupported
from turnout.core.messages import Parameters
from turnout.protocols.grpc_messages import message_class, parse
from turnout.protocols.v2_grpc_contents import DeclaredTensor, declared
from turnout.protocols.v2_grpc_parameters import read_parameters

ModelInferRequest = message_class("inference.ModelInferRequest")


class Head(NamedTuple):
    """What a request says besides its values. `contents` holds the typed ones: InferTensorContents or None."""

    model: str
    version: str
    tensors: tuple[DeclaredTensor, ...]
    contents: tuple[Any, ...]
    typed: bool
    outputs: tuple[str, ...]
    parameters: Parameters


def read_head(serialized: bytes) -> Head:
    """The head in these bytes. Raises InvalidInput and Unsupported."""
    message = parse(ModelInferRequest, serialized)
    tensors: dict[str, DeclaredTensor] = {}
    contents: list[Any] = []
    for index, tensor in enumerate(message.inputs):
        where = f"inputs[{index}]"
        if tensor.name in tensors:
            raise InvalidInput("the same input twice", field=f"{where}.name", got=repr(tensor.name))
        _refuse_shared_memory(read_parameters(tensor.parameters, where), where)
        tensors[tensor.name] = declared(where, tensor.name, tensor.datatype, tuple(tensor.shape))
        contents.append(tensor.contents if tensor.HasField("contents") else None)
    outputs: dict[str, None] = {}
    for index, output in enumerate(message.outputs):
        where = f"outputs[{index}]"
        parameters = read_parameters(output.parameters, where)
        _refuse_shared_memory(parameters, where)
        if parameters.get("classification"):
            raise Unsupported(f"{where}: the classification extension is not offered; ask for the output itself")
        if not output.name:
            raise InvalidInput("an output needs a name", field=f"{where}.name")
        outputs[output.name] = None
    return Head(
        model=message.model_name,
        version=message.model_version,
        tensors=tuple(tensors.values()),
        contents=tuple(contents),
        typed=any(content is not None for content in contents),
        outputs=tuple(outputs),
        parameters=_request_parameters(message.parameters),
    )


def _request_parameters(found: Any) -> Parameters:
    parameters = read_parameters(found, "")
    for key, value in parameters.items():
        if key in ("sequence_id", "sequence_start", "sequence_end") and value:
            raise Unsupported(f"parameters[{key!r}]: sequences are not offered here; each request stands alone")
        if key.startswith("triton_") and key != "triton_enable_empty_final_response":
            raise InvalidInput("names that begin with triton_ are reserved", field=f"parameters[{key!r}]")
    return parameters


def _refuse_shared_memory(parameters: Parameters, where: str) -> None:
    if any(key.startswith("shared_memory_") for key in parameters):
        raise Unsupported(f"{where}: the shared-memory extensions are not offered; send raw_input_contents")
