"""The one place that calls webhooks: JSON by POST to an address that the spec names; 2xx means that it agrees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_MOST_BYTES = 4096
_SUCCESS = range(200, 300)


def post(url: str, body: Mapping[str, Any], timeout: float) -> tuple[bool, str]:
    """Whether the answer was 2xx, and its first words; redirects are not followed. Blocks `timeout` seconds at most.

    Never raises: a webhook that is down does not agree.
    """
    import http.client  # brings TLS, and most servers call nobody

    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        words = answer.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return False, f"it does not answer ({type(problem).__name__})"
    finally:
        connection.close()
    return answer.status in _SUCCESS, f"{answer.status} {words}"[:200]
