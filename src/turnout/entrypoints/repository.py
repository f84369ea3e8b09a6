"""The model repository API of the Open Inference Protocol at a running server: index, load and unload.

The controller knows and acts; a router carries questions to it and answers back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from turnout.core.errors import InvalidInput, Unsupported
from turnout.core.servable import Serving
from turnout.entrypoints.questions import Questions
from turnout.protocols.grpc import GrpcMethod
from turnout.protocols.grpc_messages import message_class, parse
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route

_SERVICE = "/inference.GRPCInferenceService/"
#: The states of the protocol; a version that is kept loaded answers nobody.
_STATES = {"PREPARING": "LOADING", "LOADING": "LOADING", "READY": "READY", "DRAINING": "UNLOADING"}


class Repository:
    """Three REST routes and three gRPC methods. Loading and unloading is refused unless the operator allowed it."""

    def __init__(self, questions: Questions, *, control: bool) -> None:
        self._questions = questions
        self._control = control

    def routes(self) -> tuple[Route, ...]:
        """The paths of the extension."""
        model = "/v2/repository/models/{name}"
        return (
            Route("POST", "/v2/repository/index", answer=self.index, summary="Every version with its state"),
            Route(
                "POST", f"{model}/load", answer=self.load, summary="Load a model, or look anew at what there is of it"
            ),
            Route("POST", f"{model}/unload", answer=self.unload, summary="Unload a model"),
        )

    def methods(self) -> tuple[GrpcMethod, ...]:
        """The same over gRPC."""
        return (
            GrpcMethod(f"{_SERVICE}RepositoryIndex", stream=self._grpc_index),
            GrpcMethod(f"{_SERVICE}RepositoryModelLoad", stream=self._grpc_load),
            GrpcMethod(f"{_SERVICE}RepositoryModelUnload", stream=self._grpc_unload),
        )

    async def index(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        """The body may be empty; `{"ready": true}` leaves out what is not ready."""
        wanted = _object(http.body).get("ready", False)
        if not isinstance(wanted, bool):
            raise InvalidInput("must be true or false", field="ready", got=json.dumps(wanted)[:60])
        return _respond([_without_empty(entry) for entry in await self._entries(only_ready=wanted)])

    async def load(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        """Loads what the model's artifact holds now; `{"parameters": {"version": ...}}` serves one version more."""
        await self._change("load", name, _object(http.body).get("parameters"))
        return _respond({})

    async def unload(self, http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
        """Unloads all versions, or the one that `{"parameters": {"version": ...}}` names."""
        await self._change("unload", name, _object(http.body).get("parameters"))
        return _respond({})

    async def _entries(self, *, only_ready: bool) -> list[dict[str, str]]:
        status = await self._questions.ask({"do": "status"})
        found: list[dict[str, str]] = []
        for model in status["models"]:
            numbers: dict[str, dict[str, str]] = {}
            for version in model["versions"]:  # oldest first; of two contents of one version callers see the ready one
                state, reason = _state(version)
                number = version["version"]
                if number not in numbers or numbers[number]["state"] != "READY":
                    numbers[number] = {"name": model["name"], "version": number, "state": state, "reason": reason}
            found += numbers.values()
            there = {entry["version"] for entry in found if entry["name"] == model["name"]}
            for number, receipt in model.get("unloaded", {}).items():
                if number not in there:
                    gone = {"name": model["name"], "version": number, "state": "UNAVAILABLE", "reason": receipt}
                    found.append(gone)
            if not model["versions"] and not model.get("unloaded"):
                found.append({"name": model["name"], "version": "", "state": "UNAVAILABLE", "reason": model["problem"]})
        return [entry for entry in found if not only_ready or entry["state"] == "READY"]

    async def _change(self, what: str, name: str, parameters: Any) -> None:
        if not self._control:
            raise Unsupported(
                f"failed to {what} {name!r}: this server does not let its callers load or unload models "
                f"(`turnout serve --model-control` allows it; `turnout {what}` works beside the server)"
            )
        parameters = parameters or {}
        if not isinstance(parameters, dict):
            raise InvalidInput("must be an object", field="parameters", got=json.dumps(parameters)[:60])
        # unload_dependents: there are no ensembles here whose parts could be unloaded
        # Never an artifact: to name what is loaded is to choose what code runs here, and a caller may be anybody.
        allowed = {"version"} if what == "load" else {"version", "unload_dependents"}
        if unknown := sorted(set(parameters) - allowed):
            raise InvalidInput(
                "not offered here", field=f"parameters.{unknown[0]}", expected=" or ".join(sorted(allowed))
            )
        said = {key: _word(key, parameters[key]) for key in ("version",) if parameters.get(key) is not None}
        await self._questions.ask({"do": what, "model": name, **said})

    async def _grpc_index(self, messages: AsyncIterator[bytes], serving: Serving) -> AsyncIterator[bytes]:
        request = parse(message_class("inference.RepositoryIndexRequest"), await _first(messages))
        if request.repository_name:
            raise Unsupported("repository_name: there is one repository, and it has no name; leave the field empty")
        response = message_class("inference.RepositoryIndexResponse")()
        for entry in await self._entries(only_ready=request.ready):
            response.models.add(**entry)
        yield response.SerializeToString()

    async def _grpc_load(self, messages: AsyncIterator[bytes], serving: Serving) -> AsyncIterator[bytes]:
        request = parse(message_class("inference.RepositoryModelLoadRequest"), await _first(messages))
        await self._change("load", _model_of(request), _parameters(request))
        yield message_class("inference.RepositoryModelLoadResponse")().SerializeToString()

    async def _grpc_unload(self, messages: AsyncIterator[bytes], serving: Serving) -> AsyncIterator[bytes]:
        request = parse(message_class("inference.RepositoryModelUnloadRequest"), await _first(messages))
        await self._change("unload", _model_of(request), _parameters(request))
        yield message_class("inference.RepositoryModelUnloadResponse")().SerializeToString()


async def _first(messages: AsyncIterator[bytes]) -> bytes:
    async for message in messages:
        return message
    raise InvalidInput("the call has no message", expected="one message")


def _word(key: str, value: Any) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise InvalidInput("must be text", field=f"parameters.{key}", got=json.dumps(value)[:60])
    return str(value)


def _state(version: dict[str, Any]) -> tuple[str, str]:
    """A version's state in the words of the protocol, and why it is not ready."""
    state = _STATES.get(version["state"], "UNAVAILABLE")
    workers = version["workers"]
    if state == "READY" and workers and not any(worker["state"] == "READY" for worker in workers):
        return "UNAVAILABLE", "no worker is alive at this moment"
    return state, version["reason"] if state != "READY" else ""


def _model_of(request: Any) -> str:
    # KServe's clients put the model's name where Triton's put the repository's.
    name: str = request.model_name or request.repository_name
    if not name:
        raise InvalidInput("missing", field="model_name", expected="the name of a model")
    return name


def _parameters(request: Any) -> dict[str, Any]:
    found = {}
    for key, value in getattr(request, "parameters", {}).items():
        which = value.WhichOneof("parameter_choice")
        found[key] = getattr(value, which) if which else ""
    return found


def _object(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    if not len(body):
        return {}
    try:
        found = json.loads(bytes(body))
    except ValueError as problem:
        raise InvalidInput(f"not JSON: {problem}", field="body", expected="a JSON object, or nothing") from None
    if not isinstance(found, dict):
        raise InvalidInput(
            "not an object", field="body", expected="a JSON object, or nothing", got=json.dumps(found)[:60]
        )
    return found


def _without_empty(entry: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in entry.items() if value}


def _respond(value: Any) -> HttpResponse:
    return HttpResponse(200, JSON, json.dumps(value).encode())
