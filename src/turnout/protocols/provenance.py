"""Who gave an answer, in the bodies of answers: as parameters, and as the trace of its steps where that was asked for.

Header fields and metadata say the same, shorter; those are the doors' own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from turnout.core.errors import InvalidInput
from turnout.core.messages import TWIN, Journey, Parameter, Parameters, StepTrace
from turnout.protocols.http import JSON, HttpResponse

#: The request parameter, and the member of an answer's body or parameters.
EXPLAIN = "explain"


def provenance(served_by: str, digest: str, variant: str, revision: int, degraded: str) -> dict[str, Parameter]:
    """What is known of an answer but its prediction id: empty texts are left out."""
    said: dict[str, Parameter] = {"served_by": served_by, "digest": digest, "variant": variant, "revision": revision}
    said["degraded"] = degraded
    return {name: value for name, value in said.items() if value != ""}


def parameters_json(parameters: Parameters, journey: Journey | None) -> bytes:
    """The parameters of an answer as a JSON object, with who gave it; b"" where there is nothing to say."""
    if journey is None or not journey.prediction_id:
        return _object(parameters) if parameters else b""
    twin = ""
    if parameters:
        twin = str(parameters.get(TWIN, ""))
        if len(parameters) > bool(twin):
            return _whole(parameters, journey)
    start = usual_parameters(
        twin, journey.served_by, journey.digest, journey.variant, journey.revision, journey.degraded
    )
    end = b'"}' if journey.steps is None else b'","explain":%b}' % orjson.dumps(explanation(journey))
    return start + journey.prediction_id.encode() + end


@lru_cache(maxsize=1024)
def usual_parameters(twin: str, served_by: str, digest: str, variant: str, revision: int, degraded: str) -> bytes:
    """The parameters of an answer as JSON, up to the prediction id that ends them."""
    said = {TWIN: twin} if twin else {}
    said |= provenance(served_by, digest, variant, revision, degraded)  # type: ignore[arg-type]  # texts and a number
    return orjson.dumps(said)[:-1] + b',"prediction_id":"'


def _whole(parameters: Parameters, journey: Journey) -> bytes:
    said: dict[str, Any] = {**parameters, **answer_parameters(journey)}
    if journey.steps is not None:
        said[EXPLAIN] = explanation(journey)
    return _object(said)


def _object(said: Mapping[str, Any]) -> bytes:
    """By the library that takes any number and any text."""
    return json.dumps(dict(said), separators=(",", ":")).encode()


def answer_parameters(journey: Journey) -> dict[str, Parameter]:
    """Who gave an answer, as parameters."""
    said = provenance(journey.served_by, journey.digest, journey.variant, journey.revision, journey.degraded)
    said["prediction_id"] = journey.prediction_id
    return said


def explanation(journey: Journey) -> dict[str, Any]:
    """Who gave the answer and the steps it took, in the order in which they ended. Times in seconds."""
    return {**answer_parameters(journey), "steps": [_step(step) for step in journey.steps or ()]}


def _step(step: StepTrace) -> dict[str, Any]:
    said: dict[str, Any] = {"node": step.node, "name": step.name, "outcome": step.outcome}
    said["seconds"] = round(step.seconds, 6)
    if step.queue_seconds:
        said["queue_seconds"] = round(step.queue_seconds, 6)
    if step.detail:
        said["detail"] = step.detail
    return said


def explained(answer: HttpResponse, journey: Journey | None) -> HttpResponse:
    """The answer with the member `explain` where its caller asked for that and its body is a JSON object."""
    if journey is None or journey.steps is None or not journey.prediction_id or answer.content_type != JSON:
        return answer
    body = answer.body
    if not isinstance(body, bytes) or len(body) < 3 or body[-1:] != b"}":
        return answer
    return answer._replace(body=b'%b,"explain":%b}' % (body[:-1], orjson.dumps(explanation(journey))))


def read_explain(parameters: Parameters, journey: Journey | None) -> None:
    """Switches the trace on where the request's parameters ask for it. Raises InvalidInput for what is no boolean."""
    wanted = parameters.get(EXPLAIN)
    if wanted is None:
        return
    if not isinstance(wanted, bool):
        raise InvalidInput("must be true or false", field=f"parameters.{EXPLAIN}", got=repr(wanted)[:60])
    if wanted and journey is not None and journey.steps is None:
        journey.steps = []
