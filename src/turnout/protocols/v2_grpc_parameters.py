"""Parameters of the Open Inference Protocol over gRPC: values of five kinds by name."""

from __future__ import annotations

from typing import Any

from turnout.core.errors import InvalidInput
from turnout.core.messages import NO_PARAMETERS, Parameter, Parameters
from turnout.protocols.grpc_messages import message_class

ModelInferResponse = message_class("inference.ModelInferResponse")


def read_parameters(found: Any, where: str) -> Parameters:
    """The parameters in a map of InferParameter. `where` is the path of what they belong to, if any.

    Raises InvalidInput where one holds no value.
    """
    if not found:
        return NO_PARAMETERS
    parameters: dict[str, Parameter] = {}
    for key, value in found.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is None:
            path = f"{where}.parameters" if where else "parameters"
            raise InvalidInput(
                "a parameter without a value",
                field=f"{path}[{key!r}]",
                expected="one of bool_param, int64_param, string_param, double_param, uint64_param",
            )
        parameters[key] = getattr(value, kind)
    return parameters


def write_parameters(parameters: Parameters) -> bytes:
    """The serialized `parameters` field of a ModelInferResponse."""
    message = ModelInferResponse()
    for key, value in parameters.items():
        target = message.parameters[key]
        if isinstance(value, bool):
            target.bool_param = value
        elif isinstance(value, int):
            if -(1 << 63) <= value < 1 << 63:
                target.int64_param = value
            elif 0 < value < 1 << 64:
                target.uint64_param = value
            else:
                target.string_param = str(value)
        elif isinstance(value, float):
            target.double_param = value
        else:
            target.string_param = value
    data: bytes = message.SerializeToString(deterministic=True)
    return data
