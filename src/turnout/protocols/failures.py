"""The failure body that KServe, TensorFlow Serving and the Open Inference Protocol share."""

from __future__ import annotations

import json
import math

from turnout.core.errors import Failure
from turnout.protocols.http import JSON, HttpResponse, status_of


def error_body(failure: Failure) -> HttpResponse:
    """`{"error": "..."}` under the failure's status, with `Retry-After` where waiting helps."""
    body = json.dumps({"error": failure.message}).encode()
    return HttpResponse(status_of(failure), JSON, body, retry_headers(failure))


def retry_headers(failure: Failure) -> tuple[tuple[str, str], ...]:
    """`Retry-After` in whole seconds, rounded up, where the failure says how long to wait."""
    if failure.retry_after is None or not math.isfinite(failure.retry_after):
        return ()
    return (("Retry-After", str(max(1, math.ceil(failure.retry_after)))),)
