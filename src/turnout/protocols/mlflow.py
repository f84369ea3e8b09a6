"""MLflow's scoring protocol: `/invocations`, `/ping`, `/health`, `/version` (SageMaker's container contract too)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from turnout import __version__
from turnout.core.errors import Code, Failure, InvalidInput
from turnout.core.messages import NO_PARAMETERS, Context, InferRequest, InferResponse, Parameters
from turnout.core.servable import ServedModel, Serving
from turnout.core.signature import PARAMETERS, Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.protocols import examples
from turnout.protocols.failures import retry_headers
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route, UnsupportedMediaType, status_of
from turnout.protocols.json_arrays import DOUBT, nested_array
from turnout.protocols.json_values import exact_array, expect_list, expect_object, loads, show
from turnout.protocols.output_values import answered, array_json, array_values, asked_outputs, row_values, value_json
from turnout.protocols.provenance import explained
from turnout.protocols.tabular import (
    from_columns,
    from_csv,
    from_parquet,
    from_records,
    from_rows,
    from_split,
    validated,
)
from turnout.protocols.v2_json import exact_parameters

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
FIELDS = ("dataframe_split", "dataframe_records", "instances", "inputs")

#: The words that MLflow's clients know for our codes.
ERROR_CODES = {
    Code.INVALID_ARGUMENT: "INVALID_PARAMETER_VALUE",
    Code.NOT_FOUND: "RESOURCE_DOES_NOT_EXIST",
    Code.UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    Code.UNIMPLEMENTED: "NOT_IMPLEMENTED",
    Code.PERMISSION_DENIED: "PERMISSION_DENIED",
    Code.UNAUTHENTICATED: "UNAUTHENTICATED",
    Code.RESOURCE_EXHAUSTED: "REQUEST_LIMIT_EXCEEDED",
    Code.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    Code.FAILED_PRECONDITION: "INVALID_STATE",
    Code.ALREADY_EXISTS: "RESOURCE_ALREADY_EXISTS",
    Code.CANCELLED: "CANCELLED",
}


class MalformedInput(InvalidInput):
    """The body is not of the form that the protocol asks for (MLflow's BAD_REQUEST)."""


def _malformed(problem: InvalidInput, reason: str) -> MalformedInput:
    return MalformedInput(
        f"{reason}: {problem.reason}", field=problem.field, expected=problem.expected, got=problem.got
    )


class _Body(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Nothing but plain values for a single input; every other body is for the exact decoder."""

    instances: msgspec.Raw = msgspec.Raw(b"")
    inputs: msgspec.Raw = msgspec.Raw(b"")


_DECODE = msgspec.json.Decoder(_Body).decode


class MlflowInvocations:
    """Decodes and encodes `/invocations`."""

    name = "mlflow"

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest:
        """The request. Raises InvalidInput with the path of what is wrong, or UnsupportedMediaType."""
        signature = model.signature
        kind = media_type(http)
        parameters: Parameters = NO_PARAMETERS
        framed = True
        try:
            if kind == JSON:
                arrays = _quick(http.body, signature)
                framed = arrays is None
                if arrays is None:
                    arrays, parameters, framed = _exact(http.body, signature)
            elif kind == CSV:
                arrays = from_csv(signature, http.body)
            elif kind == PARQUET:
                arrays = from_parquet(signature, http.body)
            else:
                raise UnsupportedMediaType(
                    f"content type {kind or 'missing'!r} is not read here; send one of {JSON}, {CSV}, {PARQUET}"
                )
            inputs, rows = validated(signature, arrays, "input")
            outputs = asked_outputs(http, signature, first_only=True)
            framed = signature.form == "table" or (framed and signature.form != "names")
        except MalformedInput as problem:
            raise MalformedInput(
                problem.reason,
                field=problem.field,
                expected=problem.expected,
                got=problem.got,
                example=examples.text(signature, "mlflow"),
            ) from None
        except InvalidInput as problem:
            raise problem.with_example(examples.text(signature, "mlflow")) from None
        reply = (framed, bool(signature.form))
        return InferRequest(model.name, inputs, rows, context, model.version, outputs, parameters, reply=reply)

    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse:
        """`{"predictions": ...}`: one output bare; several as records for a table, by name for tensors.

        A model that was logged with MLflow answers as its pyfunc does: a data frame of one column is records too.
        """
        outputs = answered(request, response)
        framed, named = request.reply if isinstance(request.reply, tuple) else (bool(request.reply), False)
        if len(outputs) == 1 and not named:
            (array,) = outputs.values()
            answer = HttpResponse(200, JSON, b'{"predictions":' + array_json(array) + b"}")
            return explained(answer, request.context.journey)
        values: Any = row_values(outputs) if framed else {k: array_values(v) for k, v in outputs.items()}
        answer = HttpResponse(200, JSON, b'{"predictions":' + value_json(values) + b"}")
        return explained(answer, request.context.journey)

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error_code": ..., "message": ...}` under the failure's status."""
        return error_body(failure)


def error_body(failure: Failure) -> HttpResponse:
    """The failure in MLflow's form."""
    code = ERROR_CODES.get(failure.code, "INTERNAL_ERROR")
    if isinstance(failure, MalformedInput | UnsupportedMediaType):
        code = "BAD_REQUEST"
    body = json.dumps({"error_code": code, "message": failure.message}).encode()
    return HttpResponse(status_of(failure), JSON, body, retry_headers(failure))


def media_type(http: HttpRequest) -> str:
    """The content type in lower case, without parameters. Raises UnsupportedMediaType for a charset not UTF-8."""
    kind, *rest = (part.strip().lower() for part in http.headers.get("content-type", "").split(";"))
    for parameter in rest:
        key, _, value = parameter.partition("=")
        if key == "format" or (key == "charset" and value.strip('"') not in ("utf-8", "utf8")):
            raise UnsupportedMediaType(f"the content type's {parameter!r} is not supported; only charset=utf-8 is")
    return kind


def _quick(body: bytes | bytearray | memoryview, signature: Signature) -> Tensors | None:
    if len(signature.inputs) != 1:
        return None
    spec = signature.inputs[0]
    try:
        found = _DECODE(body)
        raw = bytes(found.instances) or bytes(found.inputs)
        if found.instances and found.inputs:
            return None
        return {spec.name: nested_array(spec.datatype, raw, len(spec.shape))}
    except DOUBT:
        return None


def _exact(body: bytes | bytearray | memoryview, signature: Signature) -> tuple[Tensors, Parameters, bool]:
    """Arrays, parameters, and whether the input was a table."""
    try:
        document = loads(body)
    except InvalidInput as problem:
        raise _malformed(problem, "Invalid input. Ensure that input is a valid JSON formatted string") from None
    present = [field for field in FIELDS if isinstance(document, dict) and field in document]
    if len(present) != 1:
        raise MalformedInput(
            "Invalid input. The input must be a JSON dictionary with exactly one of the input fields",
            field="body",
            expected=f"exactly one of {', '.join(FIELDS)}",
            got=show(document),
        )
    field = present[0]
    framed = field.startswith("dataframe")
    if declared := [spec for spec in signature.inputs if spec.name.startswith(PARAMETERS)]:
        rows = replace(signature, inputs=tuple(spec for spec in signature.inputs if spec not in declared))
        arrays = _READERS[field](rows, document[field])
        return {**arrays, **_parameters(declared, document.get("params"))}, NO_PARAMETERS, framed
    try:
        parameters = exact_parameters(document.get("params"), "params") or NO_PARAMETERS
    except InvalidInput as problem:
        raise _malformed(problem, "params must be a dictionary of single values") from None
    return _READERS[field](signature, document[field]), parameters, framed


def _parameters(declared: list[TensorSpec], given: Any) -> Tensors:
    """The parameters that the model declares, as inputs; others are ignored, as MLflow does."""
    values = {} if given is None else expect_object(given, "params")
    found = {}
    for spec in declared:
        name = spec.name.removeprefix(PARAMETERS)
        if name in values:
            value = values[name]
            several = value if isinstance(value, list) and spec.shape == (-1,) else [value]
            found[spec.name] = exact_array(spec.datatype, several, f"params.{name}")
    return found


def _split(signature: Signature, value: Any) -> Tensors:
    if not isinstance(value, dict):
        raise MalformedInput(
            f"Dataframe split format must be a dictionary. Got {_python_name(value)}", field="dataframe_split"
        )
    if not isinstance(value.get("data"), list):
        raise MalformedInput(
            "Provided dataframe_split field is not a valid dataframe representation",
            field="dataframe_split.data",
            expected="a list of rows",
            got=show(value.get("data")),
        )
    return from_split(signature, value, "dataframe_split")


def _records(signature: Signature, value: Any) -> Tensors:
    if not isinstance(value, list):
        raise MalformedInput(
            f"Dataframe records format must be a list of records. Got {_python_name(value)}.", field="dataframe_records"
        )
    return from_records(signature, value, "dataframe_records")


def _instances(signature: Signature, value: Any) -> Tensors:
    rows = expect_list(value, "instances")
    if rows and isinstance(rows[0], dict):
        if _is_table(signature):
            return from_records(signature, rows, "instances")
        columns: dict[str, list[Any]] = {key: [] for key in rows[0]}
        for number, row in enumerate(rows):
            if set(expect_object(row, f"instances[{number}]")) != set(columns):
                raise InvalidInput("the keys differ from the first row's", field=f"instances[{number}]", got=show(row))
            for key, values in columns.items():
                values.append(row[key])
        return _named(signature, columns, "instances")
    return from_rows(signature, rows, "instances")


def _inputs(signature: Signature, value: Any) -> Tensors:
    if isinstance(value, dict):
        table = len(signature.inputs) == 1 and signature.inputs[0].is_given_by(value)
        return from_columns(signature, value, "inputs") if table else _named(signature, value, "inputs")
    if isinstance(value, list) and value and isinstance(value[0], dict) and _is_table(signature):
        return from_records(signature, value, "inputs")
    return from_rows(signature, value, "inputs")


def _is_table(signature: Signature) -> bool:
    return examples.record(signature) is not None and any(spec.columns for spec in signature.inputs)


def _named(signature: Signature, values: dict[str, Any], field: str) -> Tensors:
    """One tensor per input by name; unknown names are ignored, as MLflow does."""
    return {
        spec.name: exact_array(spec.datatype, values[spec.name], f"{field}.{spec.name}")
        for spec in signature.inputs
        if spec.name in values
    }


def _python_name(value: Any) -> str:
    return {dict: "dictionary", list: "list", str: "string", bool: "boolean"}.get(type(value), show(value))


_READERS = {"dataframe_split": _split, "dataframe_records": _records, "instances": _instances, "inputs": _inputs}


def ping(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """200 while every model can answer, 503 else."""
    return HttpResponse(200 if serving.ready else 503, JSON, b"\n")


def server_version(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Turnout's version as plain text."""
    return HttpResponse(200, "text/plain; charset=utf-8", __version__.encode())


class MlflowRest:
    """The protocol. `/invocations` means the only served model."""

    name = "mlflow"

    def __init__(self) -> None:
        self._invocations = MlflowInvocations()

    def routes(self) -> tuple[Route, ...]:
        """Every path of the protocol that this server answers."""
        return (
            Route("POST", "/invocations", codec=self._invocations, summary="Predict with the only model (MLflow)"),
            Route("GET", "/ping", answer=ping, summary="Can the server answer?"),
            Route("GET", "/health", answer=ping, summary="Can the server answer?"),
            Route("GET", "/version", answer=server_version, summary="The server's version"),
        )

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error_code": ..., "message": ...}` under the failure's status."""
        return error_body(failure)
