"""The REST protocols that the HTTP door speaks, all in one visible list."""

from __future__ import annotations

from collections.abc import Sequence

from turnout.protocols.documents import DocumentsRest
from turnout.protocols.http import RestProtocol, Route
from turnout.protocols.mlflow import MlflowRest
from turnout.protocols.plain import PlainRest
from turnout.protocols.v1 import V1Rest
from turnout.protocols.v2_rest import V2Rest


def rest_protocols(server_name: str = "turnout", repository: Sequence[Route] = ()) -> tuple[RestProtocol, ...]:
    """Every REST protocol; `server_name` is what `GET /v2` says, `repository` replaces the routes of that extension."""
    return (V2Rest(server_name, repository), V1Rest(), MlflowRest(), PlainRest(), DocumentsRest())


#: The list under the server's usual name.
REST_PROTOCOLS: tuple[RestProtocol, ...] = rest_protocols()
