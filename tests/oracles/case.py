"""One request of the battery as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

JSON_TYPE = "application/json"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Case:
    """One request. `oracles` are the servers it is sent to; Turnout is expected to answer as `follows` does,
    but for what a decision in `decisions/` says.
    """

    name: str
    door: str
    target: str
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    framing: bool = True
    oracles: tuple[str, ...] = ("triton", "mlserver", "kserve")
    follows: str = "triton"
    compression: str = ""


def http(
    name: str, method: str, target: str, body: bytes | str | object = b"", *, headers: Sequence[tuple[str, str]] = (),
    **more: Any,
) -> Case:  # fmt: skip
    """A REST case; a body that is no text or bytes is written as JSON."""
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body and not any(key.lower() == "content-type" for key, _ in headers):
        headers = (("Content-Type", JSON_TYPE), *headers)
    return Case(name, "http", target, method, tuple(headers), body, **more)


def grpc(name: str, method: str, message: Any, **more: Any) -> Case:
    """A gRPC case: the method's full path, and a protobuf message or its bytes."""
    body = message if isinstance(message, bytes) else message.SerializeToString(deterministic=True)
    return Case(name, "grpc", method, body=body, **more)
