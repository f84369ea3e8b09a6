"""The admin API: what the command line does to a running server, as REST under `/admin/v1`, off the data path.

A router only carries the question to the controller. Every call needs the server's token: whoever may change what is
served may choose what code runs here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from turnout.core.errors import Failure, InvalidInput, Unauthenticated
from turnout.core.servable import Serving
from turnout.entrypoints.questions import Questions
from turnout.protocols.failures import error_body
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route

_ROOT = "/admin/v1"
_ENDPOINT = f"{_ROOT}/endpoints/{{name}}"
_BEARER = "bearer "


class Act(NamedTuple):
    """One thing that the API does. fields: what the body or the query may say, with a few words on each."""

    method: str
    path: str
    do: str
    summary: str
    fields: Mapping[str, str] = {}
    form: str = JSON


_WHO = {"author": "who changes it (default: api)", "reason": "why, for the history"}
ACTS: tuple[Act, ...] = (
    Act("GET", f"{_ROOT}/status", "status", "What is served, and why something is not"),
    Act(
        "POST", f"{_ROOT}/plan", "plan", "What applying a document would change; nothing is changed",
        {"document": "the whole desired state, as JSON or as YAML text"},
    ),
    Act(
        "POST", f"{_ROOT}/apply", "apply_document", "Make a document the desired state",
        {"document": "as for plan", "base": "the revision it starts from; refused where another is current", **_WHO},
    ),
    Act("POST", f"{_ROOT}/undo", "undo", "Go back to the revision before", _WHO),
    Act(
        "GET", f"{_ROOT}/history", "history", "The changes, newest first",
        {"limit": "how many (default 20)", "before": "only those before this number"},
    ),
    Act(
        "GET", f"{_ROOT}/events", "events", "What has happened; waits for more where nothing has",
        {"after": "the last number already known", "wait": "seconds to wait at most (default 25)"},
    ),
    Act("GET", _ENDPOINT, "endpoint", "One endpoint: its weights, its tree, its rollout"),
    Act(
        "POST", f"{_ENDPOINT}/traffic", "traffic", "Change the weights of an endpoint's versions",
        {"weights": "percent by version, 100 together", **_WHO},
    ),
    Act(
        "POST", f"{_ENDPOINT}/scale", "scale", "Change how many replicas a version has, while it serves",
        {"version": "its name", "replicas": "how many; without it, as the spec and the rollout say", **_WHO},
    ),
    Act(
        "POST", f"{_ENDPOINT}/rollout", "rollout", "Start, pause, resume, promote or abort a rollout",
        {"act": "start, pause, resume, promote, abort or status", "to": "the version, if the spec names none", **_WHO},
    ),
    Act("GET", f"{_ENDPOINT}/rollout", "rollout", "Where a rollout is, and why"),
    Act(
        "POST", f"{_ENDPOINT}/explain", "explain", "Which version would answer a request, and why",
        {"request": "{headers, cookies, query, inputs}, all of them optional"},
    ),
    Act(
        "POST", f"{_ENDPOINT}/metrics", "metric", "What came of predictions: values that a rollout is judged by",
        {"metric": "its name", "values": "a list of {prediction_id or variant, value}"},
    ),
    Act("GET", f"{_ENDPOINT}/shadow-report", "shadow_report", "How a shadow compares with what answers"),
    Act(
        "GET", f"{_ENDPOINT}/shadow-report.html", "shadow_report", "The same as a page", form="text/html; charset=utf-8"
    ),
)  # fmt: skip


class AdminRest:
    """The protocol."""

    name = "admin"

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def routes(self) -> tuple[Route, ...]:
        """Every path of the API."""
        described = Route("GET", f"{_ROOT}/openapi.json", answer=_openapi, summary="This API as an OpenAPI document")
        return (
            described,
            *[Route(act.method, act.path, answer=self._answer(act), summary=act.summary) for act in ACTS],
        )

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}`."""
        return error_body(failure)

    def _answer(self, act: Act) -> Any:
        async def answer(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
            said = _said(http, act)
            question = {**said, "do": act.do, **({"endpoint": name} if name else {}), "form": act.form}
            found = await self._questions.ask({"do": "admin", "token": _token(http), "question": question})
            if act.form != JSON:
                return HttpResponse(200, act.form, str(found).encode())
            return HttpResponse(200, JSON, json.dumps(found).encode())

        return answer


def _token(http: HttpRequest) -> str:
    said = http.headers.get("authorization", "")
    if not said.lower().startswith(_BEARER):
        raise Unauthenticated(
            "the admin API needs the server's token: send the header `Authorization: Bearer TOKEN`; "
            "`turnout token` prints it to whoever started the server"
        )
    return said[len(_BEARER) :].strip()


def _said(http: HttpRequest, act: Act) -> dict[str, Any]:
    """What the caller says, from the body or the query. Raises InvalidInput for what the act does not know."""
    if act.method == "GET":
        found: Any = {key: values[-1] for key, values in http.parameters().items()}
    else:
        try:
            found = json.loads(bytes(http.body) or b"{}")
        except (ValueError, RecursionError) as problem:
            raise InvalidInput(f"not JSON: {problem}", field="body", expected="a JSON object") from None
    if not isinstance(found, dict):
        raise InvalidInput("not an object", field="body", expected="a JSON object", got=json.dumps(found)[:60])
    if unknown := sorted(set(found) - set(act.fields)):
        expected = ", ".join(act.fields) or "nothing"
        raise InvalidInput("unknown", field=unknown[0], expected=expected)
    return found


def _openapi(http: HttpRequest, serving: Serving, name: str, version: str) -> HttpResponse:
    paths: dict[str, Any] = {}
    for act in ACTS:
        said = (
            [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}] if "{" in act.path else []
        )
        operation: dict[str, Any] = {
            "summary": act.summary,
            "operationId": f"{act.do}_{act.method.lower()}" + ("_page" if act.form != JSON else ""),
            "responses": {
                "200": {"description": "Done", "content": {act.form.partition(";")[0]: {"schema": {}}}},
                "default": {"description": "Refused: the body says why", "content": {JSON: {"schema": _ERROR}}},
            },
        }
        if act.method == "GET":
            said += [
                {"name": key, "in": "query", "description": words, "schema": {"type": "string"}}
                for key, words in act.fields.items()
            ]
        elif act.fields:
            properties = {key: {"description": words} for key, words in act.fields.items()}
            operation["requestBody"] = {"content": {JSON: {"schema": {"type": "object", "properties": properties}}}}
        if said:
            operation["parameters"] = said
        paths.setdefault(act.path, {})[act.method.lower()] = operation
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Turnout admin API", "version": "1"},
        "security": [{"token": []}],
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
    return HttpResponse(200, JSON, json.dumps(document).encode())


_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
