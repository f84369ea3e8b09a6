"""The shipped conformance suite over ensembles and cascades, each over real batching."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.graph.parts import ONE, asked
from tests.graph.steps import driven, run
from tests.runtime.places import PLACES, batched
from turnout.core.servable import Servable
from turnout.core.signature import Signature
from turnout.core.tensors import Tensors
from turnout.graph.cascade import Cascade, CascadePolicy
from turnout.graph.ensemble import Ensemble, EnsemblePolicy
from turnout.testing.servables import SERVABLE_CHECKS, Check, keeps_fixed_sizes, runs_what_cannot_be_joined


def identity(signature: Signature, **more: Any) -> dict[str, Any]:
    return {
        "steps": {"only": {"use": "m", **more}},
        "outputs": {spec.name: f"only.{spec.name}" for spec in signature.outputs},
    }


def fan_out(signature: Signature) -> dict[str, Any]:
    """Two steps that both answer everything; the second one is there for one output."""
    first, *others = [spec.name for spec in signature.outputs]
    outputs: dict[str, Any] = {name: f"a.{name}" for name in others}
    return {
        "steps": {"a": {"use": "m"}, "b": {"use": "n"}},
        "outputs": {first: {"combine": "first", "of": [f"b.{first}", f"a.{first}"]}, **outputs},
    }


ENSEMBLES: dict[str, Any] = {
    "one step": identity,
    "with a deadline": lambda signature: identity(signature, deadline=20.0, retries=1),
    "partial": lambda signature: identity(signature) | {"partial": True},
    "fan-out": fan_out,
}


def over(build: Any) -> Any:
    """Two batchings of the same model, and what is built over them."""
    make_batching = batched([PLACES["thread-memory"]])

    @asynccontextmanager
    async def make(model: type[Any]) -> AsyncIterator[Servable]:
        async with AsyncExitStack() as stack:
            parts = {name: await stack.enter_async_context(make_batching(model)) for name in ("m", "n")}
            yield build(model.signature, parts)

    return make


def ensemble_of(say: Any) -> Any:
    def build(signature: Signature, parts: Mapping[str, Any]) -> Servable:
        policy = msgspec.convert(say(signature), EnsemblePolicy)
        used = {use: parts[use] for use in policy.uses}
        return Ensemble("both", policy, used, dict.fromkeys(used, signature))

    return build


def cascade_of(threshold: float) -> Any:
    def build(signature: Signature, parts: Mapping[str, Any]) -> Servable:
        policy = CascadePolicy(steps=("m", "n"), output="calls", measure="value", threshold=threshold)
        return Cascade("fast", policy, parts, dict.fromkeys(parts, signature))

    return build


@pytest.mark.parametrize("check", SERVABLE_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble(name: str, check: Check) -> None:
    asyncio.run(check(over(ensemble_of(ENSEMBLES[name]))))


#: A cascade is made of rows and of something that says how sure they are.
OF_A_CASCADE = [check for check in SERVABLE_CHECKS if check not in {runs_what_cannot_be_joined, keeps_fixed_sizes}]


@pytest.mark.parametrize("check", OF_A_CASCADE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("threshold", [-1.0, 1e200], ids=["nobody goes on", "all go on"])
def test_cascade(threshold: float, check: Check) -> None:
    """By the number of calls, which is above 0: so all stay, or all go on."""
    asyncio.run(check(over(cascade_of(threshold))))


class Doubles:
    signature = ONE

    def predict(self, inputs: Tensors) -> Tensors:
        return {"y": inputs["x"] * 2.0}


class Held(Doubles):
    """Does not answer before it is let go."""

    gate = threading.Event()

    def predict(self, inputs: Tensors) -> Tensors:
        self.gate.wait(20.0)
        return super().predict(inputs)


def test_a_real_member_that_hangs_is_gone_without() -> None:
    """Its batch goes on where it is; the answer does not wait for it, and nothing is left that does."""

    async def main() -> None:
        make = batched([PLACES["thread-memory"]])
        async with make(Doubles) as quick, make(Held) as held:
            said = {
                "steps": {"a": {"use": "quick"}, "b": {"use": "held"}},
                "outputs": {"y": {"combine": "mean", "of": ["a.y", "b.y"]}},
                "partial": True,
            }
            policy = msgspec.convert(said, EnsemblePolicy)
            parts = {"quick": quick, "held": held}
            tree = Ensemble("both", policy, parts, dict.fromkeys(parts, Doubles.signature))
            try:
                deadline = time.monotonic() + 2.0
                response = await driven(tree, asked([1.0, 2.0], deadline))
                assert time.monotonic() < deadline
                assert (list(response.outputs["y"]), response.parameters["missing"]) == ([2.0, 4.0], "b")
            finally:
                Held.gate.set()
            response = await driven(tree, asked([1.0, 2.0], time.monotonic() + 10.0))
            assert "missing" not in response.parameters

    run(main, 30.0)
