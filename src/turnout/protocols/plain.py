"""The plain form, for people and scripts: `POST /predict/NAME` with a bare JSON list or object, or CSV.

A list is a row or rows; an object is one row, or columns; a list of objects is records. Whatever came, the answer is
one record per row: `{"predictions": [{"label": "setosa", "probabilities": {...}}]}`, or CSV for `Accept: text/csv`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from turnout.core.errors import Failure, InvalidInput
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Tensors
from turnout.protocols import examples
from turnout.protocols.failures import error_body
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route, UnsupportedMediaType
from turnout.protocols.json_values import exact_array, loads, show
from turnout.protocols.mlflow import CSV, PARQUET, media_type
from turnout.protocols.output_values import answered, asked_outputs, row_values, value_json
from turnout.protocols.provenance import explained
from turnout.protocols.tabular import from_columns, from_csv, from_parquet, from_records, from_rows, validated


class PlainPredict:
    """Decodes and encodes `/predict`."""

    name = "plain"

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest:
        """The request. Raises InvalidInput with the path of what is wrong, or UnsupportedMediaType."""
        signature = model.signature
        try:
            inputs, rows = validated(signature, _arrays(http, signature), "body")
            outputs = asked_outputs(http, signature)
        except InvalidInput as problem:
            raise problem.with_example(examples.text(signature, "plain")) from None
        return InferRequest(model.name, inputs, rows, context, model.version, outputs, reply=signature)

    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse:
        """`{"model", "version", "predictions"}` with one record per row; CSV where it was asked for."""
        rows = row_values(answered(request, response))
        if isinstance(request.reply, Signature):
            _name_columns(rows, request.reply)
        if _wants_csv(http):
            return HttpResponse(200, "text/csv; charset=utf-8", _table(rows))
        content: dict[str, Any] = {"model": response.model}
        if response.version:
            content["version"] = response.version
        content["predictions"] = rows
        return explained(HttpResponse(200, JSON, value_json(content)), request.context.journey)

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)


def _name_columns(rows: list[dict[str, Any]], signature: Signature) -> None:
    """Lists whose places have names (the classes of probabilities) become objects."""
    for spec in signature.outputs:
        if len(spec.columns) < 2:
            continue
        for row in rows:
            values = row.get(spec.name)
            if isinstance(values, list) and len(values) == len(spec.columns):
                row[spec.name] = dict(zip(spec.columns, values, strict=True))


def _wants_csv(http: HttpRequest) -> bool:
    accept = http.headers.get("accept", "")
    return CSV in accept and JSON not in accept


def _table(rows: list[dict[str, Any]]) -> bytes:
    """Rows as CSV; lists and objects within a row become columns of their own: `probabilities.0`."""
    flat = [_flat("", row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        value = {str(index): part for index, part in enumerate(value)}
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, part in value.items():
        found.update(_flat(f"{prefix}.{key}" if prefix else key, part))
    return found


def _arrays(http: HttpRequest, signature: Signature) -> Tensors:
    kind = media_type(http)
    if kind == CSV:
        return from_csv(signature, http.body)
    if kind == PARQUET:
        return from_parquet(signature, http.body)
    looks_json = bytes(http.body[:64]).lstrip()[:1] in (b"[", b"{")
    if kind != JSON and not looks_json and kind not in ("", "application/x-www-form-urlencoded"):
        raise UnsupportedMediaType(f"content type {kind!r} is not read here; send one of {JSON}, {CSV}, {PARQUET}")
    return from_document(loads(http.body), signature)


def from_document(document: Any, signature: Signature) -> Tensors:
    """The arrays in a bare JSON value. Raises InvalidInput."""
    if isinstance(document, dict):
        return _from_object(document, signature)
    if isinstance(document, list) and document and isinstance(document[0], dict):
        return from_records(signature, document, "body")
    if len(signature.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise InvalidInput(
            "the model has several inputs", field="body", expected=f"an object with {names}", got=show(document)
        )
    return from_rows(signature, _as_rows(document, signature.inputs[0], signature), "body", null_is_nan=True)


def _as_rows(value: Any, spec: TensorSpec, signature: Signature) -> Any:
    """A single row wrapped as rows. For a tensor of one column a list of scalars is the column, not a row."""
    wrapped = 0 if _one_column(spec) else len(spec.shape) - 1
    return [value] if signature.batched and _depth(value) == wrapped else value


def _one_column(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and spec.shape[1] == 1


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _from_object(document: Mapping[str, Any], signature: Signature) -> Tensors:
    specs = signature.inputs
    one_row = signature.batched and not any(isinstance(value, list) for value in document.values())
    by_column = any(spec.is_given_by(document) for spec in specs)
    if by_column or (len(specs) == 1 and specs[0].name not in document):
        return from_records(signature, [document], "body") if one_row else from_columns(signature, document, "body")
    found = {}
    for spec in specs:
        if spec.name not in document:
            continue  # the signature says whether it may be missing
        values = _as_rows(document[spec.name], spec, signature)
        array = exact_array(spec.datatype, values, f"body.{spec.name!r}", null_is_nan=True)
        if _one_column(spec) and array.ndim == 1:
            array = array.reshape(-1, 1)
        found[spec.name] = array
    return found


class PlainRest:
    """The protocol."""

    name = "plain"

    def __init__(self) -> None:
        self._predict = PlainPredict()

    def routes(self) -> tuple[Route, ...]:
        """Every path of the protocol that this server answers."""
        predict = self._predict
        return (
            Route("POST", "/predict/{name}", codec=predict, summary="Predict: a list, an object or CSV"),
            Route("POST", "/predict/{name}/versions/{version}", codec=predict, summary="Predict with a version"),
            Route("POST", "/predict", codec=predict, summary="Predict with the only model"),
        )

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)
