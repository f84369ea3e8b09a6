"""One version of an endpoint as a document says it: a model, an ensemble or a cascade, with policies of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput
from turnout.deploy.model_entry import model_of, plain_model
from turnout.deploy.plain import plain
from turnout.deploy.problems import NOTHING, Problems, placed
from turnout.deploy.spec import ModelSpec, is_model_name
from turnout.deploy.typed import join, known, mapping, typed
from turnout.graph.cache import CachePolicy
from turnout.graph.cascade import CascadePolicy
from turnout.graph.circuit_breaker import CircuitBreakerPolicy
from turnout.graph.ensemble import EnsemblePolicy
from turnout.graph.outputs import OutputsPolicy
from turnout.graph.retry import RetryPolicy
from turnout.runtime.outlier import OutlierPolicy

#: What a version may say of itself; of these, what an endpoint says for all its versions; what a version can be.
POLICIES: Mapping[str, type[Any]] = {
    "outputs": OutputsPolicy,
    "circuit_breaker": CircuitBreakerPolicy,
    "outlier": OutlierPolicy,
    "retry": RetryPolicy,
    "cache": CachePolicy,
}
SHARED = ("outputs", "circuit_breaker", "outlier", "retry")
KINDS = ("model", "ensemble", "cascade")
_GRAPHS: Mapping[str, type[Any]] = {"ensemble": EnsemblePolicy, "cascade": CascadePolicy}
_NOT_ITS_OWN = {"name", "artifact", "version", "versions", "labels", "swap", "keep"}
#: How a version that is a model runs.
RUN = tuple(one.name for one in fields(ModelSpec) if one.name not in _NOT_ITS_OWN)
_EXAMPLE = "versions: {v1: {model: fraud.onnx}}"


class VariantSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an endpoint: a model, an ensemble or a cascade, and what is to be kept of its answers.

    A policy that is None is not there.
    """

    name: str
    model: ModelSpec | None = None
    ensemble: EnsemblePolicy | None = None
    cascade: CascadePolicy | None = None
    outputs: OutputsPolicy | None = None
    circuit_breaker: CircuitBreakerPolicy | None = None
    outlier: OutlierPolicy | None = None
    retry: RetryPolicy | None = None
    cache: CachePolicy | None = None

    @property
    def uses(self) -> tuple[str, ...]:
        """What a graph is made of; nothing for a model."""
        if self.ensemble is not None:
            return self.ensemble.uses
        return self.cascade.steps if self.cascade is not None else ()

    @property
    def kind(self) -> str:
        """Which of the three it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


def check_name(name: str, path: str) -> None:
    """Raises InvalidInput for what nothing can be called."""
    if not is_model_name(name):
        raise InvalidInput(
            "not a name", field=path, got=repr(name),
            expected="letters, digits, '.', '_' and '-', at most 128, beginning with a letter or digit",
        )  # fmt: skip


def variant_of(endpoint: str, name: str, entry: Any, shared: Mapping[str, Any]) -> VariantSpec:
    """A version; `shared` are the endpoint's policies, which it has where it says nothing. Raises InvalidInput."""
    path = f"endpoints.{endpoint}.versions.{name}"
    problems = Problems()
    problems.take(lambda: check_name(name, path), None)
    found = problems.take(lambda: mapping(entry, path, _EXAMPLE), NOTHING)
    kinds = [kind for kind in KINDS if kind in found]
    if found and len(kinds) == 1:
        allowed = (*KINDS, *RUN, *POLICIES) if kinds[0] == "model" else (kinds[0], *POLICIES)
        problems.take(lambda: known(found, allowed, path), None)
    elif isinstance(entry, Mapping):
        problems.take(lambda: known(found, (*KINDS, *RUN, *POLICIES), path), None)
        problems.add(
            InvalidInput(
                "not one kind of version", field=path, expected="exactly one of " + ", ".join(KINDS),
                got=", ".join(kinds) or "none of them", example=f"{name}: {{model: fraud.onnx}}",
            )
        )  # fmt: skip
    policies = dict(shared)
    for key in POLICIES:
        if key in found:
            policies[key] = problems.take(lambda key=key: policy_of(key, found[key], path), None)  # type: ignore[misc]
    content: dict[str, Any] = {}
    if kinds == ["model"]:
        content["model"] = problems.take(lambda: _model(endpoint, found, path), None)
    elif len(kinds) == 1:
        kind = kinds[0]
        content[kind] = problems.take(lambda: typed(_GRAPHS[kind], found[kind], f"{path}.{kind}"), None)
    problems.check()
    return VariantSpec(name=name, **content, **policies)


def plain_variant(variant: VariantSpec, shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says of a version beside what it says of all."""
    found: dict[str, Any] = {}
    if variant.model is not None:
        model = plain_model(variant.model)
        found = {"model": model.pop("artifact"), **{key: value for key, value in model.items() if key in RUN}}
    else:
        found[variant.kind] = plain(getattr(variant, variant.kind))
    for key in POLICIES:
        policy = getattr(variant, key)
        if policy != shared.get(key):
            found[key] = False if policy is None else plain(policy)
    return found


def policy_of(key: str, said: Any, path: str) -> Any:
    """One policy; true for its defaults, false or nothing for none. Raises InvalidInput."""
    if said is None or said is False:
        return None
    if said is True:
        said = {}
    if key != "outputs":
        return typed(POLICIES[key], said, join(path, key))
    own = mapping(said, join(path, key), "outputs: {finite: true, score: {min: 0, max: 1}}")
    settings = {name: value for name, value in own.items() if name in OutputsPolicy.__struct_fields__}
    beside = {name: value for name, value in own.items() if name not in settings}
    try:
        return typed(
            OutputsPolicy, {**settings, "each": {**mapping(settings.get("each", {}), f"{path}.{key}.each"), **beside}},
            join(path, key),
        )  # fmt: skip
    except InvalidInput as problem:  # what stands beside the settings was not said under `each`
        inside = f"{path}.{key}.each."
        raise placed(problem, lambda field: _beside(field, inside, beside)) from None


def _beside(field: str, inside: str, beside: Mapping[str, Any]) -> str:
    name = field.removeprefix(inside)
    is_beside = field.startswith(inside) and any(name == one or name.startswith(f"{one}.") for one in beside)
    return inside.removesuffix("each.") + name if is_beside else field


def _model(endpoint: str, said: Mapping[str, Any], path: str) -> ModelSpec:
    run = {key: value for key, value in said.items() if key in RUN}
    try:
        return model_of({"name": endpoint, "artifact": said["model"], **run}, path, Path("/"))
    except InvalidInput as problem:
        raise placed(problem, lambda field: f"{path}.model" if field == f"{path}.artifact" else field) from None
