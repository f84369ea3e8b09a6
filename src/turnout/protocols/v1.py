"""KServe v1 and TensorFlow Serving's REST predict: `/v1/models/NAME:predict`, in rows or in columns."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from turnout.core.errors import Failure, InvalidInput, Unsupported
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel, Serving
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors
from turnout.protocols import examples, v1_status
from turnout.protocols.failures import error_body
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route
from turnout.protocols.json_arrays import DOUBT, nested_array
from turnout.protocols.json_values import MAX_AXES, exact_array, expect_list, expect_object, loads, show
from turnout.protocols.output_values import answered, array_json, array_values, asked_outputs, row_values, value_json
from turnout.protocols.provenance import explained
from turnout.protocols.tabular import from_columns, from_records, validated

ROW, COLUMN = "row", "column"
_ABSENT = msgspec.Raw(b"")


class _Body(msgspec.Struct, gc=False):
    instances: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT
    signature_name: str = ""


_DECODE = msgspec.json.Decoder(_Body).decode


class V1Predict:
    """Decodes and encodes `:predict`."""

    name = "v1"

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest:
        """The request. Raises InvalidInput with the path of what is wrong."""
        signature = model.signature
        try:
            arrays, form = _quick(http.body, signature) or _exact(loads(http.body), signature)
            inputs, rows = validated(signature, arrays, "instances" if form == ROW else "inputs")
            outputs = asked_outputs(http, signature, first_only=True)
        except InvalidInput as problem:
            raise problem.with_example(examples.text(signature, "v1")) from None
        return InferRequest(model.name, inputs, rows, context, model.version, outputs, reply=form)

    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse:
        """`{"predictions": ...}` for rows, `{"outputs": ...}` for columns; a single output stands without its name."""
        outputs = answered(request, response)
        start = b'{"outputs":' if request.reply == COLUMN else b'{"predictions":'
        if len(outputs) == 1:
            ((name, array),) = outputs.items()
            body = start + array_json(array, base64_always=name.endswith("_bytes")) + b"}"
            return explained(HttpResponse(200, JSON, body), request.context.journey)
        if request.reply == COLUMN:
            values: Any = {name: _values(name, array) for name, array in outputs.items()}
        else:
            values = row_values(outputs)
            for row in values:
                row.update({name: _base64(value) for name, value in row.items() if name.endswith("_bytes")})
        return explained(HttpResponse(200, JSON, start + value_json(values) + b"}"), request.context.journey)

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)


def _values(name: str, array: Array) -> Any:
    values = array_values(array)
    return _base64(values) if name.endswith("_bytes") else values


def _base64(value: Any) -> Any:
    if isinstance(value, list):
        return [_base64(part) for part in value]
    return {"b64": base64.b64encode(value.encode()).decode()} if isinstance(value, str) else value


def _quick(body: bytes | bytearray | memoryview, signature: Signature) -> tuple[Tensors, str] | None:
    """Plain nested values for a model with one input; None where the exact decoder has to look."""
    if len(signature.inputs) != 1:
        return None
    try:
        found = _DECODE(body)
        if found.signature_name or (found.instances is _ABSENT) == (found.inputs is _ABSENT):
            return None
        spec = signature.inputs[0]
        raw, form = (found.inputs, COLUMN) if found.instances is _ABSENT else (found.instances, ROW)
        array = nested_array(spec.datatype, raw, len(spec.shape))
    except DOUBT:
        return None
    return {spec.name: array}, form


def _exact(document: Any, signature: Signature) -> tuple[Tensors, str]:
    body = expect_object(document, "body")
    name = body.get("signature_name", "")
    if name not in ("", signature.name or v1_status.DEFAULT_SIGNATURE):
        raise InvalidInput(f"Serving signature name: {show(name)} not found in signature def", field="signature_name")
    if ("instances" in body) == ("inputs" in body):
        raise InvalidInput("needs exactly one of instances and inputs", field="body", got=show(body))
    if "inputs" in body:
        return _from_inputs(body["inputs"], signature), COLUMN
    instances = expect_list(body["instances"], "instances")
    if not instances:
        raise InvalidInput("there is no instance", field="instances", expected="at least one")
    return _from_instances(instances, signature), ROW


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and set(value) != {"b64"}


def _from_instances(instances: list[Any], signature: Signature) -> Tensors:
    objects = [_is_object(value) for value in instances]
    if any(objects) and not all(objects):
        number = objects.index(not objects[0])
        raise InvalidInput(
            "objects and plain values are mixed", field=f"instances[{number}]", got=show(instances[number])
        )
    specs = signature.inputs
    if not objects[0]:
        if len(specs) != 1:
            names = ", ".join(repr(spec.name) for spec in specs)
            raise InvalidInput("the model has several inputs", field="instances", expected=f"objects with {names}")
        return {specs[0].name: _tensor(specs[0], instances, "instances")}
    if len(specs) == 1 and specs[0].columns and set(instances[0]) != {specs[0].name}:
        return from_records(signature, instances, "instances")
    needed = {spec.name for spec in specs if not spec.optional}
    for number, value in enumerate(instances):
        if (
            not needed <= set(value)
            or not set(value) <= {spec.name for spec in specs}
            or set(value) != set(instances[0])
        ):
            raise InvalidInput(
                "the keys are not the model's inputs",
                field=f"instances[{number}]",
                expected=", ".join(repr(spec.name) for spec in specs),
                got=show(value),
            )
    return {
        spec.name: _tensor(spec, [value[spec.name] for value in instances], f"instances[*].{spec.name}")
        for spec in specs
        if spec.name in instances[0]
    }


def _from_inputs(inputs: Any, signature: Signature) -> Tensors:
    specs = signature.inputs
    if len(specs) == 1 and not _is_object(inputs):
        return {specs[0].name: _tensor(specs[0], inputs, "inputs")}
    named = expect_object(inputs, "inputs")
    if len(specs) == 1 and specs[0].is_given_by(named):
        return from_columns(signature, named, "inputs")
    arrays: dict[str, Array] = {}
    for spec in specs:
        if spec.name in named:
            arrays[spec.name] = _tensor(spec, named[spec.name], f"inputs.{spec.name}")
        elif not spec.optional:
            raise InvalidInput(
                f"input {spec.name!r} is missing",
                field="inputs",
                expected=", ".join(repr(other.name) for other in specs),
                got=show(named),
            )
    return arrays


def _tensor(spec: TensorSpec, values: Any, field: str) -> Array:
    if spec.datatype == "BYTES":
        values = _unwrap(values, field)
    if spec.shape == () and not isinstance(values, list):
        return exact_array(spec.datatype, [values], field, ())
    return exact_array(spec.datatype, values, field)


def _unwrap(value: Any, field: str, axes: int = MAX_AXES) -> Any:
    """`{"b64": "..."}` anywhere in a nested list becomes bytes."""
    if isinstance(value, list) and axes:
        return [_unwrap(part, f"{field}[{number}]", axes - 1) for number, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    text = value.get("b64")
    try:
        if len(value) == 1 and isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInput("not base64", field=field, expected='{"b64": "<base64>"}', got=show(value))


def _unsupported(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Raises Unsupported for the verbs that this server does not have."""
    serving.find(name, version)
    verb = http.path.rpartition(":")[2]
    raise Unsupported(f":{verb} is not offered for model {name!r}; use :predict")


class V1Rest:
    """The protocol: KServe v1 with TensorFlow Serving's column form, versions and status."""

    name = "v1"

    def __init__(self) -> None:
        self._predict = V1Predict()

    def routes(self) -> tuple[Route, ...]:
        """Every path of the protocol that this server answers."""
        routes: list[Route] = []
        for path, of in v1_status.SUBJECTS:
            routes.append(
                Route("POST", f"{path}:predict", codec=self._predict, summary=f"Predict with {of} (KServe v1)")
            )
            routes.extend(
                Route("POST", f"{path}:{verb}", answer=_unsupported, summary="Not offered")
                for verb in ("explain", "classify", "regress")
            )
        return (*routes, *v1_status.routes())

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)
