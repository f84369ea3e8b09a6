"""The answers of KServe v1 and TensorFlow Serving that need no prediction: list, status, metadata."""

from __future__ import annotations

from typing import Any

from turnout.core.servable import ServedModel, Serving, State
from turnout.core.signature import TensorSpec
from turnout.protocols.http import HttpRequest, HttpResponse, Route
from turnout.protocols.v2_metadata import models, respond

#: What a model's only signature is called where its artifact has no name for it.
DEFAULT_SIGNATURE = "serving_default"
_TF_STATE = {
    State.STARTING: "LOADING",
    State.WARMING: "LOADING",
    State.READY: "AVAILABLE",
    State.DRAINING: "UNLOADING",
    State.FAILED: "END",
}
_TF_DTYPE = {
    "BOOL": "DT_BOOL",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}


def status(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """KServe's `name` and `ready` with TensorFlow Serving's `model_version_status`; 503 while not ready."""
    model = serving.find(name, version)
    shown = [model] if version else [other for other in serving.models() if other.name == model.name]
    ready = model.state is State.READY
    content = {"name": model.name, "ready": ready, "model_version_status": [_version(other) for other in shown]}
    return respond(content, 200 if ready else 503)


def _version(model: ServedModel) -> dict[str, Any]:
    failed = model.state is State.FAILED
    return {
        "version": model.version,
        "state": _TF_STATE[model.state],
        "status": {"error_code": "UNKNOWN" if failed else "OK", "error_message": model.reason if failed else ""},
    }


def metadata(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """The signature in TensorFlow Serving's words."""
    model = serving.find(name, version)
    definition = {
        "inputs": {spec.name: _tensor(spec) for spec in model.signature.inputs},
        "outputs": {spec.name: _tensor(spec) for spec in model.signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return respond(
        {
            "model_spec": {"name": model.name, "signature_name": "", "version": model.version},
            "metadata": {"signature_def": {"signature_def": {model.signature.name or DEFAULT_SIGNATURE: definition}}},
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(length), "name": ""} for length in spec.shape]
    return {
        "dtype": _TF_DTYPE[spec.datatype],
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": spec.name,
    }


#: What a path may name. A label stands where a version does: the two never look alike.
SUBJECTS = (
    ("/v1/models/{name}", "a model"),
    ("/v1/models/{name}/versions/{version}", "a version"),
    ("/v1/models/{name}/labels/{version}", "a labelled version"),
)


def routes() -> tuple[Route, ...]:
    """The paths of this file."""
    return (
        Route("GET", "/v1/models", answer=models, summary="The served models"),
        *(Route("GET", path, answer=status, summary=f"The state of {of}") for path, of in SUBJECTS),
        *(Route("GET", f"{path}/metadata", answer=metadata, summary=f"The signature of {of}") for path, of in SUBJECTS),
    )
