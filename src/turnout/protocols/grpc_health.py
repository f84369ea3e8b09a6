"""grpc.health.v1: the standard health service, for load balancers and Kubernetes probes.

A service is the whole server (empty name), one of the services offered here, or a model by its name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from turnout.core.errors import ModelNotFound, NotReady
from turnout.core.servable import Serving, State
from turnout.protocols.grpc_messages import SERVICES, message_class, parse

HealthCheckRequest = message_class("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = message_class("grpc.health.v1.HealthCheckResponse")
HealthListResponse = message_class("grpc.health.v1.HealthListResponse")

SERVING = 1
NOT_SERVING = 2
SERVICE_UNKNOWN = 3

WATCH_SECONDS = 0.5


def status(serving: Serving, service: str) -> int:
    """The status of one service. Raises ModelNotFound where there is none of that name."""
    if not service or service in SERVICES:
        return SERVING if serving.ready else NOT_SERVING
    try:
        return SERVING if serving.find(service).state is State.READY else NOT_SERVING
    except NotReady:  # asked for, and not there yet
        return NOT_SERVING


def check(message: bytes | memoryview, serving: Serving) -> bytes:
    """Health/Check."""
    service = parse(HealthCheckRequest, message).service
    return _response(status(serving, service))


def list_services(_message: bytes | memoryview, serving: Serving) -> bytes:
    """Health/List: every service of the server and every model."""
    response = HealthListResponse()
    for service in ("", *SERVICES, *(model.name for model in serving.models())):
        try:
            response.statuses[service].status = status(serving, service)
        except ModelNotFound:  # it went between the two looks
            continue
    data: bytes = response.SerializeToString(deterministic=True)
    return data


async def _pause() -> None:
    await asyncio.sleep(WATCH_SECONDS)


async def watch(
    messages: AsyncIterator[bytes], serving: Serving, pause: Callable[[], Awaitable[None]] = _pause
) -> AsyncIterator[bytes]:
    """Health/Watch: the status now, and again whenever it has changed; ends only when the caller goes.

    `serving` tells of no change by itself, so it is looked at every `WATCH_SECONDS`.
    """
    async for message in messages:
        service = parse(HealthCheckRequest, message).service
        last = -1
        while True:
            try:
                now = status(serving, service)
            except ModelNotFound:
                now = SERVICE_UNKNOWN
            if now != last:
                last = now
                yield _response(now)
            await pause()


def _response(value: int) -> bytes:
    data: bytes = HealthCheckResponse(status=value).SerializeToString()
    return data
