"""The two central types: a model is a batch function, a servable answers one request."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors


@runtime_checkable
class Model(Protocol):
    """What a format loads: a plain, synchronous function over a batch.

    `predict` gets every input of the signature with the same number of rows and returns every output
    with that number of rows. It may raise; `InvalidInput` then is the caller's fault, all else the model's.
    """

    signature: Signature

    def predict(self, inputs: Tensors) -> Tensors: ...


#: Gives the name and the `predict` of what answers these inputs.
Choose = Callable[[Tensors], tuple[str, Callable[[Tensors], Tensors]]]


class ChoosingModel(Model, Protocol):
    """A model that holds several, of which one answers each batch; whoever calls learns which.

    `choose` gives that one's name and its `predict`, and raises as `predict` does.
    """

    @property
    def choose(self) -> Choose: ...


class Servable(Protocol):
    """Whatever can answer one request: a version, a split, an ensemble, a remote.

    `infer` raises a `Failure` or returns; a cancelled caller harms nobody else.
    """

    async def infer(self, request: InferRequest) -> InferResponse: ...


class State(enum.Enum):
    """The life of a version, one way; FAILED carries a reason."""

    STARTING = "STARTING"
    WARMING = "WARMING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


class ServedModel(Protocol):
    """One version as callers see it. `signature` is known as soon as it was once loaded."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def state(self) -> State: ...
    @property
    def reason(self) -> str: ...
    @property
    def servable(self) -> Servable: ...


class Serving(Protocol):
    """What is served at this moment: the read-only view that doors and protocols have.

    `find` raises ModelNotFound or VersionNotFound; an empty version means the default one.
    `ready` is False while any model has no living worker.
    """

    @property
    def ready(self) -> bool: ...
    def models(self) -> Sequence[ServedModel]: ...
    def find(self, name: str, version: str = "") -> ServedModel: ...
