"""The answers of the Open Inference Protocol v2 that need no prediction: health, metadata, lists."""

from __future__ import annotations

import json
from typing import Any

from turnout import __version__
from turnout.core.errors import InvalidInput, Unsupported
from turnout.core.servable import ServedModel, Serving, State
from turnout.core.signature import TensorSpec
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route
from turnout.protocols.json_values import expect_object, loads, show

#: Protocol extensions that this server really offers, by their exact names.
EXTENSIONS = ("binary_tensor_data", "parameters")

#: Our states in the words of the model repository extension.
REPOSITORY_STATE = {
    State.STARTING: "LOADING",
    State.WARMING: "LOADING",
    State.READY: "READY",
    State.DRAINING: "UNLOADING",
    State.FAILED: "UNAVAILABLE",
}


def respond(content: Any, status: int = 200) -> HttpResponse:
    """A JSON response."""
    return HttpResponse(status, JSON, json.dumps(content).encode())


def live(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Whether the server runs at all."""
    return respond({"live": True})


def ready(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Whether every model has a living worker; 503 where not."""
    return respond({"live": True, "ready": serving.ready}, 200 if serving.ready else 503)


def models(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """The names of the served models."""
    return respond({"models": list(dict.fromkeys(model.name for model in serving.models()))})


def model_ready(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Whether one model can answer; 503 where not, 404 where it is not served."""
    model = serving.find(name, version)
    is_ready = model.state is State.READY
    return respond({"name": model.name, "ready": is_ready}, 200 if is_ready else 503)


def model_metadata(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """A model's versions, inputs and outputs."""
    model = serving.find(name, version)
    versions = [other.version for other in serving.models() if other.name == model.name and other.version]
    return respond(
        {
            "name": model.name,
            "versions": versions,
            "platform": model.format,
            "inputs": [_tensor(spec) for spec in model.signature.inputs],
            "outputs": [_tensor(spec) for spec in model.signature.outputs],
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
    if spec.columns:
        found["parameters"] = {"columns": ",".join(spec.columns)}
    return found


def repository_index(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Every version with its state. The body may be empty; `{"ready": true}` leaves out what is not ready."""
    only_ready = False
    if http.body:
        wanted = expect_object(loads(http.body), "body").get("ready", False)
        if not isinstance(wanted, bool):
            raise InvalidInput("must be true or false", field="ready", got=show(wanted))
        only_ready = wanted
    return respond([_entry(model) for model in serving.models() if not only_ready or model.state is State.READY])


def _entry(model: ServedModel) -> dict[str, str]:
    found = {
        "name": model.name,
        "version": model.version,
        "state": REPOSITORY_STATE[model.state],
        "reason": model.reason,
    }
    return {key: value for key, value in found.items() if value}


def read_only(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    """Raises Unsupported: models are not loaded over HTTP here."""
    raise Unsupported(f"models cannot be loaded or unloaded over HTTP here; failed to load or unload {name!r}")


def routes(server_name: str) -> tuple[Route, ...]:
    """The paths of this file, for a server of that name."""

    def server(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        return respond({"name": server_name, "version": __version__, "extensions": list(EXTENSIONS)})

    return (
        Route("GET", "/v2", answer=server, summary="The server's name, version and extensions"),
        Route("GET", "/v2/", answer=server, summary="The server's name, version and extensions"),
        Route("GET", "/v2/health/live", answer=live, summary="Is the server alive?"),
        Route("GET", "/v2/health/ready", answer=ready, summary="Can the server answer?"),
        Route("GET", "/v2/models", answer=models, summary="The served models"),
        Route("GET", "/v2/models/{name}", answer=model_metadata, summary="A model's inputs and outputs"),
        Route("GET", "/v2/models/{name}/versions/{version}", answer=model_metadata, summary="The same of a version"),
        Route("GET", "/v2/models/{name}/ready", answer=model_ready, summary="Can the model answer?"),
        Route(
            "GET", "/v2/models/{name}/versions/{version}/ready", answer=model_ready, summary="Can the version answer?"
        ),
    )


#: The repository extension where nothing but what is served is known.
REPOSITORY: tuple[Route, ...] = (
    Route("POST", "/v2/repository/index", answer=repository_index, summary="Every version with its state"),
    Route("POST", "/v2/repository/models/{name}/load", answer=read_only, summary="Load a model, where allowed"),
    Route("POST", "/v2/repository/models/{name}/unload", answer=read_only, summary="Unload a model, where allowed"),
)
