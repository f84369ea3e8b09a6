"""A step that names a version of another endpoint gets that version, whatever the traffic there."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec

from tests.graph.callers import Named, asked
from turnout.core.errors import ModelNotFound
from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.build import Beside
from turnout.graph.allocation import allocate
from turnout.graph.endpoint import Endpoint
from turnout.graph.ensemble import Ensemble, EnsemblePolicy
from turnout.graph.evidence import Evidence
from turnout.graph.split import Split

ONE = Signature((TensorSpec("x", "FP32", (-1, 1)),), (TensorSpec("y", "FP32", (-1, 1)),))


class Others:
    """One endpoint with two versions, all of whose traffic goes to the first; `champion` is a label."""

    def __init__(self) -> None:
        arms = {name: Named(name) for name in ("v1", "v2")}
        split = Split("other", arms, allocate({"v1": 100.0, "v2": 0.0}), {name: Evidence() for name in arms})
        self.arms = arms
        self.whole = Endpoint("other", split, versions={"v1": "", "v2": ""}, default="v1")

    def find(self, name: str, version: str = "") -> Any:
        if name != "other":
            raise ModelNotFound(f"there is no model {name!r} here")
        return SimpleNamespace(servable=self.whole, version={"champion": "v2"}.get(version, version))


def answered_by(use: str, header: str = "") -> str:
    live: Any = Others()
    policy = msgspec.convert({"steps": {"a": {"use": use}}, "outputs": {"y": "a.y"}}, EnsemblePolicy)
    tree = Ensemble("both", policy, {use: Beside(live, use)}, {use: ONE})
    response = asyncio.run(tree.infer(asked({"x-route-to": header} if header else {})))
    return str(response.parameters["steps"])


def test_the_version_that_is_named_answers() -> None:
    assert answered_by("other") == "a=other@v1"
    assert answered_by("other@v2") == "a=other@v2"
    assert answered_by("other@champion") == "a=other@v2"


def test_what_a_caller_says_of_the_whole_does_not_reach_the_parts() -> None:
    assert answered_by("other", "both") == "a=other@v1"
