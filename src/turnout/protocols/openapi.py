"""The OpenAPI 3.1 document, written from what is served: each model with its own schemas and an example that works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from turnout import __version__
from turnout.core.servable import ServedModel, Serving
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES
from turnout.protocols import examples
from turnout.protocols.mlflow import CSV

_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_MLFLOW_ERROR = {
    "type": "object",
    "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    "required": ["error_code", "message"],
}


def document(serving: Serving) -> dict[str, Any]:
    """The document for every served model, by its default version, and for the server's own paths."""
    found: dict[str, ServedModel] = {}
    for model in serving.models():
        if model.name not in found:
            found[model.name] = serving.find(model.name)
    paths: dict[str, Any] = dict(_server_paths())
    for model in found.values():
        paths.update(_model_paths(model, only=len(found) == 1))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Turnout",
            "version": __version__,
            "description": "Predictions over the Open Inference Protocol v2, KServe v1, MLflow's scoring protocol "
            "and a plain form. A page to try them is at /docs.",
        },
        "tags": [
            *({"name": model.name, "description": _describe(model)} for model in found.values()),
            {"name": "server", "description": "Health and lists"},
        ],
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, "MlflowError": _MLFLOW_ERROR},
            "headers": {name: {"description": text, "schema": kind} for name, (text, kind) in _ANSWERER.items()},
            "parameters": {
                name: {"name": name, "in": "header", "description": text, "schema": kind}
                for name, (text, kind) in _WISHES.items()
            },
        },
    }


_TEXT = {"type": "string"}
#: What every prediction says of who gave it.
_ANSWERER: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "X-Served-By": ("Who answered: ENDPOINT@VERSION", _TEXT),
    "X-Variant": ("The version that the request was assigned to", _TEXT),
    "X-Revision": ("The revision of the endpoint's spec", {"type": "integer", "minimum": 0}),
    "X-Prediction-Id": ("The id of this prediction, for labels that come later", _TEXT),
    "X-Degraded": ("Only where the variant did not answer itself: why not", _TEXT),
}
#: What a caller may ask for beside the prediction.
_WISHES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "X-Request-Deadline-Ms": ("How long you will wait, in milliseconds", {"type": "number", "exclusiveMinimum": 0}),
    "X-Route-To": ("The version of the endpoint that shall answer", _TEXT),
    "X-Fail-On-Degraded": ("Rather a failure than the answer of a fallback", {"type": "string", "enum": ["true"]}),
    "X-Explain": ("Whether the answer tells which steps it took", {"type": "string", "enum": ["true", "false"]}),
}


def _describe(model: ServedModel) -> str:
    version = f" version {model.version}" if model.version else ""
    return f"{model.format} model{version}, {model.state.value.lower()}"


def _element(spec: TensorSpec) -> dict[str, Any]:
    kind = DTYPES[spec.datatype].kind
    if kind == "O":
        return {"type": "string"}
    if kind == "b":
        return {"type": "boolean"}
    if kind == "f":
        return {"type": "number"}
    bits = DTYPES[spec.datatype].itemsize * 8
    low, high = (0, 2**bits - 1) if kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def tensor_schema(spec: TensorSpec, axes: tuple[int, ...] | None = None) -> dict[str, Any]:
    """A tensor as nested lists; `axes` are the lengths still to come."""
    axes = spec.shape if axes is None else axes
    if not axes:
        return _element(spec)
    schema: dict[str, Any] = {"type": "array", "items": tensor_schema(spec, axes[1:])}
    if axes[0] != -1:
        schema |= {"minItems": axes[0], "maxItems": axes[0]}
    return schema


def _named(specs: tuple[TensorSpec, ...], *, rows: bool) -> dict[str, Any]:
    """An object with one value per tensor: a whole tensor, or what it has for one row."""
    return {
        "type": "object",
        "properties": {spec.name: tensor_schema(spec, spec.shape[1:] if rows else spec.shape) for spec in specs},
        "required": [spec.name for spec in specs if not spec.optional],
    }


def _v2_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": spec.name},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"const": spec.datatype},
            "data": {"type": "array", "description": f"flat or nested; {spec.datatype} {list(spec.shape)}"},
            "parameters": {"type": "object"},
        },
        "required": ["name", "shape", "datatype"],
    }


def _v2(signature: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
    request = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": {"anyOf": [_v2_tensor(spec) for spec in signature.inputs]}},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "parameters": {"type": "object"},
        },
        "required": ["inputs"],
    }
    response = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": {"anyOf": [_v2_tensor(spec) for spec in signature.outputs]}},
        },
        "required": ["model_name", "outputs"],
    }
    return request, response


def _record_schema(signature: Signature) -> dict[str, Any] | None:
    """One row by column name; None where the model has no columns."""
    if examples.record(signature) is None:
        return None
    columns = {name: _element(spec) for spec in signature.inputs for name in (spec.columns or (spec.name,))}
    return {"type": "object", "properties": columns, "required": list(columns)}


def _plain(signature: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
    forms: list[dict[str, Any]] = []
    record = _record_schema(signature)
    if record is not None:
        forms += [{"type": "array", "items": record}, record]
    if len(signature.inputs) == 1:
        spec = signature.inputs[0]
        forms += [tensor_schema(spec), *([tensor_schema(spec, spec.shape[1:])] if len(spec.shape) > 1 else [])]
    else:
        forms.append(_named(signature.inputs, rows=False))
    rows = {"type": "array", "items": {"type": "object"}}
    return {"anyOf": forms}, {"type": "object", "properties": {"predictions": rows}, "required": ["predictions"]}


def _v1(signature: Signature) -> tuple[dict[str, Any], dict[str, Any]]:
    single = len(signature.inputs) == 1
    row = (
        tensor_schema(signature.inputs[0], signature.inputs[0].shape[1:])
        if single
        else _named(signature.inputs, rows=True)
    )
    whole = tensor_schema(signature.inputs[0]) if single else _named(signature.inputs, rows=False)
    forms: list[dict[str, Any]] = [{"type": "object", "properties": {"inputs": whole}, "required": ["inputs"]}]
    if signature.batched:
        instances = {"type": "array", "items": row, "minItems": 1}
        forms.insert(0, {"type": "object", "properties": {"instances": instances}, "required": ["instances"]})
    return {"oneOf": forms}, {"type": "object", "properties": {"predictions": {}, "outputs": {}}}


def _mlflow() -> tuple[dict[str, Any], dict[str, Any]]:
    forms = [
        {"type": "object", "properties": {field: {"type": kind}}, "required": [field]}
        for field, kind in (("dataframe_split", "object"), ("dataframe_records", "array"), ("instances", "array"))
    ]
    forms.append({"type": "object", "properties": {"inputs": {"type": ["array", "object"]}}, "required": ["inputs"]})
    return {"oneOf": forms}, {"type": "object", "properties": {"predictions": {}}, "required": ["predictions"]}


def _operation(
    model: str, summary: str, schemas: tuple[dict[str, Any], dict[str, Any]], example: Any, error: str = "Error"
) -> dict[str, Any]:
    failure = {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}}
    words = {
        "400": "The request does not fit the model: which field, what was expected, what came",
        "404": "No such model or version",
        "503": "Not ready, or too much waiting",
        "504": "The deadline passed",
    }
    request, response = schemas
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _ANSWERER}
    return {
        "tags": [model],
        "summary": summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _WISHES],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request, "example": example}}},
        "responses": {
            "200": {
                "description": "The prediction",
                "headers": headers,
                "content": {"application/json": {"schema": response}},
            },
            **{status: {"description": text, **failure} for status, text in words.items()},
        },
    }


def _model_paths(model: ServedModel, *, only: bool) -> dict[str, Any]:
    signature = model.signature
    name = quote(model.name, safe="")
    plain = _operation(model.name, "Predict: a list, an object or CSV", _plain(signature), examples.plain(signature))
    text = examples.csv(signature)
    if text is not None:
        plain["requestBody"]["content"][CSV] = {"schema": {"type": "string"}, "example": text}
        plain["responses"]["200"]["content"][CSV] = {"schema": {"type": "string"}}
    v2 = _operation(model.name, "Predict (Open Inference Protocol v2)", _v2(signature), examples.v2(signature))
    v1 = _operation(model.name, "Predict (KServe v1)", _v1(signature), examples.v1(signature))
    paths = {
        f"/predict/{name}": {"post": plain},
        f"/v2/models/{name}/infer": {"post": v2},
        f"/v1/models/{name}:predict": {"post": v1},
        f"/v2/models/{name}": {"get": _question(model.name, "Inputs, outputs and versions")},
        f"/v2/models/{name}/ready": {"get": _question(model.name, "Can the model answer?")},
    }
    if only:
        mlflow = _operation(model.name, "Predict (MLflow)", _mlflow(), examples.mlflow(signature), "MlflowError")
        paths["/invocations"] = {"post": mlflow}
    return paths


def _question(tag: str, summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"tags": [tag], "summary": summary, "responses": {"200": {"description": "The answer", "content": content}}}


def _server_paths() -> dict[str, Any]:
    return {
        "/v2": {"get": _question("server", "The server's name, version and extensions")},
        "/v2/health/live": {"get": _question("server", "Is the server alive?")},
        "/v2/health/ready": {"get": _question("server", "Can every model answer? 503 where not")},
        "/v2/models": {"get": _question("server", "The served models")},
        "/ping": {"get": _question("server", "Can every model answer? 503 where not")},
    }
