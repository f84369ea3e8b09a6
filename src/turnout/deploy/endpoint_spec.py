"""An endpoint as the user says it: its versions, and how its requests are guided between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from turnout.core.errors import InvalidInput
from turnout.deploy.locations import located_values
from turnout.deploy.model_entry import plain_number
from turnout.deploy.plain import plain
from turnout.deploy.problems import Problems
from turnout.deploy.rollout.policy import RolloutPolicy, stable_version
from turnout.deploy.typed import known, mapping, shown, typed, under, unknown
from turnout.deploy.variants import POLICIES, SHARED, VariantSpec, check_name, plain_variant, policy_of, variant_of
from turnout.graph.allocation import bucket_counts
from turnout.graph.cache import CachePolicy
from turnout.graph.endpoint import EndpointPolicy
from turnout.graph.fallback_policy import FallbackPolicy
from turnout.graph.last_good import LastGoodPolicy
from turnout.graph.limits import LimitsPolicy
from turnout.graph.shadow import ShadowPolicy
from turnout.graph.split import SplitPolicy

__all__ = ["EndpointSpec", "FallbackStep", "VariantSpec", "parse_endpoint"]

_SPLIT = ("sticky", "rules", "direct")
#: What an endpoint may say.
KEYS = (
    "versions", "traffic", *_SPLIT, "shadow", "fallback", "hedge", "deadline", "limits", *POLICIES, "rollout",
)  # fmt: skip
_EXAMPLE = "endpoints: {fraud: {versions: {v1: {model: fraud.onnx}}}}"


class FallbackStep(msgspec.Struct, frozen=True, kw_only=True):
    """One that stands in: a version, the last good answer, or constant values. Exactly one of them."""

    version: str = ""
    last_good: LastGoodPolicy | None = None
    default: Mapping[str, Any] | None = None


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of an endpoint. traffic: percent by version, of every version, 100 in all. shadow: by version.

    said: all of it as JSON values in their shortest form, from which `from_json` makes the same again: two endpoints
    that mean the same say the same.
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
        """The version with most of the traffic; of equal ones the first by name."""
        return min(self.traffic, key=lambda name: (-self.traffic[name], name))

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

    Raises InvalidInput for all that is wrong, with the paths in the document.
    """
    if folder is not None:
        said = located_values({"endpoints": {name: said}}, folder)["endpoints"][name]
    return _Reading(name, said).endpoint()


class _Reading:
    """One endpoint while it is read: what was said, and what is wrong with it."""

    def __init__(self, name: str, said: Any) -> None:
        self._name = name
        self._path = f"endpoints.{name}"
        self._problems = Problems()
        self._found: Mapping[str, Any] = {}
        self._names: tuple[str, ...] = ()
        self._problems.take(partial(self._look, said), None)

    def endpoint(self) -> EndpointSpec:
        """The endpoint. Raises InvalidInput."""
        take, found, path = self._problems.take, self._found, self._path
        shared = {key: take(partial(policy_of, key, found[key], path), None) for key in SHARED if key in found}
        shared = {key: policy for key, policy in shared.items() if policy is not None}
        no_versions: tuple[VariantSpec, ...] = ()
        no_steps: tuple[tuple[FallbackStep, ...], FallbackPolicy] = ((), FallbackPolicy())
        versions = take(partial(self._versions, shared), no_versions)
        traffic: dict[str, float] = take(self._traffic, {})
        split = take(
            lambda: typed(SplitPolicy, {key: found[key] for key in _SPLIT if key in found}, path), SplitPolicy()
        )
        shadow: dict[str, ShadowPolicy] = take(self._shadows, {})
        steps, fallback = take(self._fallback, no_steps)
        deadline = {"deadline": found["deadline"]} if found.get("deadline") is not None else {}
        policy = take(lambda: typed(EndpointPolicy, deadline, path), EndpointPolicy())
        limits = take(lambda: self._optional(LimitsPolicy, "limits"), None)
        cache = take(lambda: self._optional(CachePolicy, "cache"), None)
        rollout = take(lambda: self._optional(RolloutPolicy, "rollout"), None)
        for number, rule in enumerate(split.rules):
            self._known(rule.to, f"{path}.rules[{number}].to", "to: NAME")
        if rollout is not None:
            self._rollout(rollout, traffic)
        self._problems.check()
        spec = EndpointSpec(
            name=self._name, said={}, versions=versions, traffic=traffic, split=split, shadow=shadow, steps=steps,
            fallback=fallback, policy=policy, limits=limits, cache=cache, rollout=rollout,
        )  # fmt: skip
        return msgspec.structs.replace(spec, said=_plain(spec, shared))

    def _look(self, said: Any) -> None:
        self._problems.take(lambda: check_name(self._name, self._path), None)
        self._found = mapping(said, self._path, _EXAMPLE)
        versions = self._found.get("versions")
        if isinstance(versions, Mapping):
            self._names = tuple(str(version) for version in versions)
        self._problems.take(lambda: known(self._found, KEYS, self._path), None)

    def _versions(self, shared: Mapping[str, Any]) -> tuple[VariantSpec, ...]:
        if self._problems.count and not self._found:
            return ()
        path = f"{self._path}.versions"
        if not (said := mapping(self._found.get("versions", {}), path, _EXAMPLE)):
            raise InvalidInput(
                "at least one version is needed", field=path, expected="a name for each", example=_EXAMPLE
            )
        found = [
            self._problems.take(partial(variant_of, self._name, str(version), entry, shared), None)
            for version, entry in said.items()
        ]
        return tuple(one for one in found if one is not None)

    def _traffic(self) -> dict[str, float]:
        path = f"{self._path}.traffic"
        if (said := self._found.get("traffic")) is None:
            return {version: 0.0 if number else 100.0 for number, version in enumerate(self._names)}
        shares = _shares(mapping(said, path, "traffic: {v1: 90, v2: 10}"), self._names, path)
        try:
            bucket_counts(shares)
        except InvalidInput as problem:
            raise InvalidInput(
                problem.reason, field=path, expected=problem.expected, got=problem.got, example=_line(shares)
            ) from None
        return {version: shares.get(version, 0.0) for version in self._names}

    def _shadows(self) -> dict[str, ShadowPolicy]:
        """A percent, or all settings, by version."""
        path = f"{self._path}.shadow"
        found: dict[str, ShadowPolicy] = {}
        for version, share in mapping(self._found.get("shadow") or {}, path, "shadow: {v2: 100}").items():
            self._known(version, f"{path}.{version}", f"NAME: {shown(share)}")
            policy = share if isinstance(share, Mapping) else {"percent": share}
            where = f"{path}.{version}"
            found[version] = self._problems.take(partial(_shadow, policy, where, share), ShadowPolicy())
        return found

    def _fallback(self) -> tuple[tuple[FallbackStep, ...], FallbackPolicy]:
        """The steps, which may stand alone or under `steps` beside settings; and the settings."""
        path, said = f"{self._path}.fallback", self._found.get("fallback") or []
        alone = not isinstance(said, Mapping)
        settings = {"steps": said} if alone else dict(said)
        steps = settings.pop("steps", [])
        if self._found.get("hedge") is not None:
            if settings.get("hedge", self._found["hedge"]) != self._found["hedge"]:
                raise InvalidInput("said twice", field=f"{self._path}.hedge", got=f"also in {path}.hedge")
            settings["hedge"] = self._found["hedge"]
        if not isinstance(steps, list):
            raise InvalidInput("not a list", field=path, expected="a list", got=shown(steps), example="fallback: [v7]")
        inner = path if alone else f"{path}.steps"
        each = [
            self._problems.take(partial(self._step, step, f"{inner}[{number}]"), FallbackStep())
            for number, step in enumerate(steps)
        ]
        self._check_order(each, inner)
        return tuple(each), typed(FallbackPolicy, settings, path)

    def _check_order(self, steps: Sequence[FallbackStep], path: str) -> None:
        """Each stands there once, under a name of its own, and none behind constant values, which never fail."""
        names = [step.version or ("default" if step.default is not None else "last_good") for step in steps]
        for number, (name, step) in enumerate(zip(names, steps, strict=True)):
            field = f"{path}[{number}]"
            if step.version in {"primary", "default", "last_good"}:
                self._problems.add(InvalidInput("a name that a fallback has for itself", field=field, got=name))
            elif number and names[number - 1] == "default":
                self._problems.add(
                    InvalidInput("never reached", field=field, expected="constant values at the end", got=name)
                )
            elif name in names[:number] and step != FallbackStep():
                self._problems.add(InvalidInput("stands twice", field=field, expected="each step once", got=name))

    def _step(self, said: Any, path: str) -> FallbackStep:
        if isinstance(said, str):
            self._known(said, path, "NAME")
            return FallbackStep(version=said)
        found = mapping(said, path, "fallback: [v7, {default: {score: 0.0}}]")
        known(found, ("last_good", "default"), path)
        if len(found) != 1:
            raise InvalidInput(
                "not one step", field=path, expected="a version, {last_good: ...} or {default: ...}",
                got=shown(found), example="fallback: [v7, {default: {score: 0.0}}]",
            )  # fmt: skip
        if "default" in found:
            return FallbackStep(default=mapping(found["default"], f"{path}.default", "{default: {score: 0.0}}"))
        return FallbackStep(last_good=typed(LastGoodPolicy, found["last_good"], f"{path}.last_good"))

    def _rollout(self, rollout: RolloutPolicy, traffic: Mapping[str, float]) -> None:
        before = self._problems.count
        for key, version in (("to", rollout.to), ("from", rollout.from_)):
            if version:
                self._known(version, f"{self._path}.rollout.{key}", f"{key}: NAME")
        if traffic and before == self._problems.count:
            try:
                stable_version(rollout, traffic)
            except InvalidInput as problem:
                self._problems.add(under(problem, self._path))

    def _optional(self, kind: type[Any], key: str) -> Any:
        said = self._found.get(key)
        if said is None or said is False:
            return None
        return typed(kind, {} if said is True else said, f"{self._path}.{key}")

    def _known(self, version: Any, path: str, line: str) -> None:
        if version not in self._names and self._names:
            self._problems.add(unknown(path, str(version), self._names, "there is no such version", line))


def _shadow(policy: Mapping[str, Any], path: str, share: Any) -> ShadowPolicy:
    if isinstance(share, Mapping):
        return typed(ShadowPolicy, policy, path)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
        raise InvalidInput("not a share", field=path, expected="0 to 100 percent, or its settings", got=shown(share))
    return ShadowPolicy(percent=float(share))


def _shares(said: Mapping[str, Any], names: Sequence[str], path: str) -> dict[str, float]:
    problems = Problems()
    for version, share in said.items():
        if version not in names:
            if names:
                line = f"NAME: {shown(share)}"
                problems.add(unknown(f"{path}.{version}", version, names, "there is no such version", line))
        elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 100:
            problems.add(
                InvalidInput("not a share", field=f"{path}.{version}", expected="0 to 100 percent", got=shown(share))
            )
    problems.check()
    return {version: float(share) for version, share in said.items()}


def _line(shares: Mapping[str, float]) -> str:
    """A line with the same proportions that works."""
    total = sum(shares.values())
    scaled = {name: round(share * 100 / total, 2) if total else 0.0 for name, share in shares.items()}
    most = max(scaled, key=lambda name: scaled[name], default=None)
    if most is None:
        return "traffic: {v1: 90, v2: 10}"
    scaled[most] = round(scaled[most] + 100 - sum(scaled.values()), 2)
    return f"traffic: {{{', '.join(f'{name}: {share:g}' for name, share in scaled.items())}}}"


def _plain(spec: EndpointSpec, shared: Mapping[str, Any]) -> dict[str, Any]:
    """All of it in the shortest form; what is not said is at its default."""
    found: dict[str, Any] = {
        "versions": {one.name: plain_variant(one, shared) for one in spec.versions},
        "traffic": {version: plain_number(share) for version, share in spec.traffic.items() if share > 0},
        **plain(spec.split),
        "shadow": {version: _plain_shadow(policy) for version, policy in spec.shadow.items()},
        **_plain_fallback(spec),
        **plain(spec.policy),
        **{key: plain(policy) for key, policy in shared.items()},
    }
    for key in ("limits", "cache", "rollout"):
        if (policy := getattr(spec, key)) is not None:
            found[key] = plain(policy)
    return {key: value for key, value in found.items() if value != {} or key in {*shared, "limits", "cache"}}


def _plain_shadow(policy: ShadowPolicy) -> Any:
    return plain_number(policy.percent) if policy == ShadowPolicy(percent=policy.percent) else plain(policy)


def _plain_fallback(spec: EndpointSpec) -> dict[str, Any]:
    settings = plain(spec.fallback)
    hedge = {"hedge": settings.pop("hedge")} if "hedge" in settings else {}
    # Values that are given as an answer stay as they are: what they are depends on the signature.
    steps = [
        step.version or (plain(step) if step.default is None else {"default": step.default}) for step in spec.steps
    ]
    if settings:
        return {"fallback": {"steps": steps, **settings}, **hedge}
    return {**({"fallback": steps} if steps else {}), **hedge}
