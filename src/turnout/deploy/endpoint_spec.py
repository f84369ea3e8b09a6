"""An endpoint as the user says it: its versions, and how its requests are guided between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput
from turnout.deploy.rollout.policy import RolloutPolicy
from turnout.deploy.spec import ModelSpec, is_model_name
from turnout.deploy.spec_file import model_of
from turnout.deploy.typed import join, known, typed, under, unknown
from turnout.graph.allocation import bucket_counts
from turnout.graph.cache import CachePolicy
from turnout.graph.circuit_breaker import CircuitBreakerPolicy
from turnout.graph.endpoint import EndpointPolicy
from turnout.graph.fallback import FallbackPolicy
from turnout.graph.last_good import LastGoodPolicy
from turnout.graph.limits import LimitsPolicy
from turnout.graph.outputs import OutputsPolicy
from turnout.graph.retry import RetryPolicy
from turnout.graph.shadow import ShadowPolicy
from turnout.graph.split import SplitPolicy

#: What an endpoint says of all its versions, and each of them may say of itself.
_EACH = ("outputs", "circuit_breaker", "retry", "cache")
_SPLIT = ("sticky", "rules", "direct")
_KEYS = ("versions", "traffic", *_SPLIT, "shadow", "fallback", "hedge", "deadline", "limits", *_EACH, "rollout")
_KINDS = ("model", "ensemble", "cascade")
_NOT_ITS_OWN = {"name", "artifact", "version", "versions", "labels", "swap", "keep"}
_RUN = tuple(one.name for one in fields(ModelSpec) if one.name not in _NOT_ITS_OWN)
_EXAMPLE = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx}}}}"
_POLICIES: Mapping[str, type[Any]] = {
    "circuit_breaker": CircuitBreakerPolicy, "retry": RetryPolicy, "cache": CachePolicy,
}  # fmt: skip


class VariantSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an endpoint: a model, an ensemble or a cascade, and what is to be kept of its answers.

    ensemble, cascade: as JSON values. A policy that is None is not there.
    """

    name: str
    model: ModelSpec | None = None
    ensemble: Mapping[str, Any] | None = None
    cascade: Mapping[str, Any] | None = None
    outputs: OutputsPolicy | None = None
    circuit_breaker: CircuitBreakerPolicy | None = None
    retry: RetryPolicy | None = None
    cache: CachePolicy | None = None


class FallbackStep(msgspec.Struct, frozen=True, kw_only=True):
    """One that stands in: a version, the last good answer, or constant values. Exactly one of them."""

    version: str = ""
    last_good: LastGoodPolicy | None = None
    default: Mapping[str, Any] | None = None


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an endpoint. traffic: percent by version, 100 in all. shadow: by version.

    said: all of it as JSON values, from which `from_json` makes the same again.
    """

    name: str
    said: Mapping[str, Any]
    versions: tuple[VariantSpec, ...]
    traffic: Mapping[str, float]
    split: SplitPolicy
    shadow: Mapping[str, ShadowPolicy]
    steps: tuple[FallbackStep, ...]
    fallback: FallbackPolicy
    policy: EndpointPolicy
    limits: LimitsPolicy | None
    cache: CachePolicy | None
    rollout: RolloutPolicy | None

    def version(self, name: str) -> VariantSpec | None:
        """The version of that name."""
        return next((one for one in self.versions if one.name == name), None)

    @property
    def default(self) -> str:
        """The version with most of the traffic."""
        return max(self.traffic, key=lambda name: self.traffic[name])

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"name": self.name, **self.said}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EndpointSpec:
        """From the form of `to_json`. Raises InvalidInput."""
        said = dict(found)
        return parse_endpoint(str(said.pop("name")), said)


def parse_endpoint(name: str, said: Any, folder: Path | None = None) -> EndpointSpec:
    """An endpoint from what a document says of it; relative paths in it count from the folder.

    Raises InvalidInput with the path in the document.
    """
    path = f"endpoints.{name}"
    if not is_model_name(name):
        raise InvalidInput("not a name", field=path, expected="letters, digits, '.', '_' and '-'", got=repr(name))
    found = dict(_mapping(said, path))
    known(found, _KEYS, path)
    found["versions"] = {
        str(version): _located(entry, folder)
        for version, entry in _mapping(found.get("versions"), f"{path}.versions").items()
    }
    if not found["versions"]:
        raise InvalidInput("at least one version is needed", field=f"{path}.versions", example=_EXAMPLE)
    common = {key: _policy(key, found[key], path) for key in _EACH if key in found and key != "cache"}
    versions = tuple(_variant(name, version, entry, common) for version, entry in found["versions"].items())
    names = tuple(one.name for one in versions)
    steps, settings = _fallback(found, names, f"{path}.fallback")
    spec = EndpointSpec(
        name=name,
        said=found,
        versions=versions,
        traffic=_traffic(found.get("traffic"), names, f"{path}.traffic"),
        split=typed(SplitPolicy, {key: found[key] for key in _SPLIT if key in found}, path),
        shadow=_shadows(found.get("shadow", {}), names, f"{path}.shadow"),
        steps=steps,
        fallback=settings,
        policy=typed(EndpointPolicy, {"deadline": found["deadline"]} if "deadline" in found else {}, path),
        limits=typed(LimitsPolicy, found["limits"], f"{path}.limits") if "limits" in found else None,
        cache=typed(CachePolicy, found["cache"], f"{path}.cache") if "cache" in found else None,
        rollout=typed(RolloutPolicy, found["rollout"], f"{path}.rollout") if "rollout" in found else None,
    )  # fmt: skip
    for place, rule in enumerate(spec.split.rules):
        _is_version(rule.to, names, f"{path}.rules[{place}].to")
    if spec.rollout is not None:
        for key, version in (("to", spec.rollout.to), ("from", spec.rollout.from_)):
            if version:
                _is_version(version, names, f"{path}.rollout.{key}")
    return spec


def _variant(endpoint: str, name: str, entry: Any, common: Mapping[str, Any]) -> VariantSpec:
    path = f"endpoints.{endpoint}.versions.{name}"
    if not is_model_name(name):
        raise InvalidInput("not a name", field=path, expected="letters, digits, '.', '_' and '-'", got=repr(name))
    found = _mapping(entry, path)
    known(found, (*_KINDS, *_RUN, *_EACH), path)
    kinds = [kind for kind in _KINDS if kind in found]
    if len(kinds) != 1:
        raise InvalidInput(
            "not one kind of version", field=path, expected="exactly one of " + ", ".join(_KINDS),
            got=", ".join(kinds) or "none", example=f"{name}: {{model: fraud.onnx}}",
        )  # fmt: skip
    policies = {**common, **{key: _policy(key, found[key], path) for key in _EACH if key in found}}
    if kinds[0] != "model":
        known(found, (kinds[0], *_EACH), path)
        inner = _mapping(found[kinds[0]], f"{path}.{kinds[0]}")
        if kinds[0] == "ensemble":
            return VariantSpec(name=name, ensemble=inner, **policies)
        return VariantSpec(name=name, cascade=inner, **policies)
    run = {key: value for key, value in found.items() if key in _RUN}
    model = model_of({"name": endpoint, "artifact": found["model"], **run}, path, Path("/"))
    return VariantSpec(name=name, model=model, **policies)


def _policy(key: str, said: Any, path: str) -> Any:
    if said is None or said is False:
        return None
    if key == "outputs":
        try:
            return OutputsPolicy.from_spec(_mapping(said, join(path, key)))
        except InvalidInput as problem:
            raise under(problem, path) from None
    return typed(_POLICIES[key], {} if said is True else said, join(path, key))


def _step(said: Any, names: tuple[str, ...], path: str) -> FallbackStep:
    if isinstance(said, str):
        _is_version(said, names, path)
        return FallbackStep(version=said)
    found = _mapping(said, path)
    known(found, ("last_good", "default"), path)
    if len(found) != 1:
        raise InvalidInput(
            "not one step", field=path, expected="a version, {last_good: ...} or {default: ...}",
            example="fallback: [v7, {default: {score: 0.0}}]",
        )  # fmt: skip
    if "default" in found:
        return FallbackStep(default=_mapping(found["default"], f"{path}.default"))
    return FallbackStep(last_good=typed(LastGoodPolicy, found["last_good"], f"{path}.last_good"))


def _fallback(
    found: Mapping[str, Any], names: tuple[str, ...], path: str
) -> tuple[tuple[FallbackStep, ...], FallbackPolicy]:
    """The steps, which may stand alone or under `steps` beside settings; and the settings."""
    said = found.get("fallback", [])
    settings = dict(said) if isinstance(said, dict) else {"steps": said}
    steps = settings.pop("steps", [])
    if "hedge" in found:
        settings["hedge"] = found["hedge"]
    if not isinstance(steps, list):
        raise InvalidInput("not a list", field=path, expected="a list", got=repr(steps)[:60], example="fallback: [v7]")
    each = tuple(_step(step, names, f"{path}[{place}]") for place, step in enumerate(steps))
    return each, typed(FallbackPolicy, settings, path)


def _traffic(said: Any, names: tuple[str, ...], path: str) -> dict[str, float]:
    if said is None:
        return {names[0]: 100.0}
    shares = _shares(said, names, path)
    try:
        bucket_counts(shares)
    except InvalidInput as problem:
        total = sum(shares.values())
        example = problem.example
        if total > 0:
            scaled = {name: round(share * 100 / total, 2) for name, share in shares.items()}
            first = next(iter(scaled))
            scaled[first] = round(scaled[first] + 100 - sum(scaled.values()), 2)
            example = f"traffic: {{{', '.join(f'{name}: {share:g}' for name, share in scaled.items())}}}"
        raise InvalidInput(
            problem.reason, field=path, expected=problem.expected, got=problem.got, example=example
        ) from None
    return shares


def _shares(said: Any, names: tuple[str, ...], path: str) -> dict[str, float]:
    found = {str(name): share for name, share in _mapping(said, path).items()}
    for name, share in found.items():
        _is_version(name, names, f"{path}.{name}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
            raise InvalidInput("not a share", field=f"{path}.{name}", expected="0 to 100 percent", got=repr(share)[:60])
    return {name: float(share) for name, share in found.items()}


def _shadows(said: Any, names: tuple[str, ...], path: str) -> dict[str, ShadowPolicy]:
    """A percent, or all settings, by version."""
    found = {str(name): share for name, share in _mapping(said, path).items()}
    for name in found:
        _is_version(name, names, f"{path}.{name}")
    return {
        name: typed(ShadowPolicy, share if isinstance(share, dict) else {"percent": share}, f"{path}.{name}")
        for name, share in found.items()
    }


def _is_version(name: str, names: tuple[str, ...], path: str) -> None:
    if name not in names:
        problem = unknown(path, name, names)
        raise InvalidInput(
            "there is no such version", field=path, expected=problem.expected, got=problem.got, example=problem.example
        )


def _located(entry: Any, folder: Path | None) -> Any:
    """A version's entry with paths that hold wherever it is read."""
    if folder is None or not isinstance(entry, dict):
        return entry
    found = dict(entry)
    model = found.get("model")
    if isinstance(model, str):
        if model.startswith("python:"):
            found["model"] = f"python:{folder / model.removeprefix('python:')}"
        elif ":" not in model or (folder / model).exists():
            found["model"] = str(folder / model)
    for key in ("signature", "example"):
        if isinstance(found.get(key), str):
            found[key] = str(folder / found[key])
    environment = found.get("environment")
    if isinstance(environment, str) and environment not in {"auto", "none"}:
        found["environment"] = str(folder / environment)
    return found


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(
            "not a mapping", field=path, expected="keys with values", got=repr(value)[:60], example=_EXAMPLE
        )
    return value
