"""Requests as doors make them, and servables that are nothing but their name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from turnout.core.messages import Context, InferRequest, InferResponse, Journey
from turnout.core.tensors import Tensors

NONE: Mapping[str, str] = MappingProxyType({})


class Said:
    """What a door knows of a request, said beforehand."""

    def __init__(self, header: Mapping[str, str], cookie: Mapping[str, str], query: Mapping[str, str]) -> None:
        self._header, self._cookie, self._query = header, cookie, query

    def header(self, name: str) -> str | None:
        return self._header.get(name)

    def cookie(self, name: str) -> str | None:
        return self._cookie.get(name)

    def argument(self, name: str) -> str | None:
        return self._query.get(name)


def asked(
    header: Mapping[str, str] = NONE,
    cookie: Mapping[str, str] = NONE,
    query: Mapping[str, str] = NONE,
    inputs: Tensors | None = None,
    *,
    explain: bool = False,
    deadline: float = math.inf,
    id: str = "",
) -> InferRequest:
    given = {"x": np.zeros((1, 1), np.float32)} if inputs is None else inputs
    journey = Journey(explain=explain)
    journey.prediction_id = id
    context = Context(deadline=deadline, attributes=Said(header, cookie, query), journey=journey)
    return InferRequest("fraud", given, len(next(iter(given.values()))), context)


class Named:
    """Answers at once with its name as the version, and counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0

    def __repr__(self) -> str:
        return f"Named({self.name})"

    async def infer(self, request: InferRequest) -> InferResponse:
        self.requests += 1
        return InferResponse({"y": request.inputs.get("x", np.zeros(request.rows))}, "fraud", self.name)


class Raises:
    """Fails at once."""

    def __init__(self, problem: BaseException) -> None:
        self.problem = problem

    async def infer(self, request: InferRequest) -> InferResponse:
        raise self.problem
