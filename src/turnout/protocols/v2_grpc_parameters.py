"""Parameters of the Open Inference Protocol over gRPC: values of five kinds by name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from turnout.core.errors import InvalidInput
from turnout.core.messages import NO_PARAMETERS, TWIN, Journey, Parameter, Parameters
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.provenance import EXPLAIN, answer_parameters, explanation, provenance
from turnout.protocols.v2_grpc_wire import field, text

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


def answer_parameters_field(parameters: Parameters, journey: Journey | None) -> bytes:
    """The serialized `parameters` field of an answer, with who gave it; b"" where there is nothing to say."""
    if journey is None or not journey.prediction_id:
        return write_parameters(parameters) if parameters else b""
    if journey.steps is not None:
        told = orjson.dumps(explanation(journey)).decode()
        return write_parameters({**parameters, **answer_parameters(journey), EXPLAIN: told})
    twin = ""
    if parameters:
        twin = str(parameters.get(TWIN, ""))
        if len(parameters) > bool(twin):
            return write_parameters({**parameters, **answer_parameters(journey)})
    id = journey.prediction_id.encode()
    by = journey.served_by
    return (
        usual_parameters_start(len(id), twin, by, journey.digest, journey.variant, journey.revision, journey.degraded)
        + id
    )


@lru_cache(maxsize=1024)
def usual_parameters_start(
    size: int, twin: str, served_by: str, digest: str, variant: str, revision: int, degraded: str
) -> bytes:
    """The entries that do not change from request to request, and the last one up to an id of so many bytes."""
    said = provenance(served_by, digest, variant, revision, degraded)
    last = field(4, text(1, "prediction_id") + field(2, text(3, "0" * size)))
    return write_parameters({TWIN: twin, **said} if twin else said) + last[:-size]


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
