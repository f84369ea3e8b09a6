"""Documents as they may be written, for properties: the same ones said in different ways too."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

VERSIONS = ("v1", "v2", "v10", "7", "on", "rules.2")
NAMES = st.sampled_from(["fraud", "churn", "a.b", "x_1", "7"])
_URIS = st.sampled_from(
    ["models:/fraud/7", "s3://models/fraud/8", "${MODELS:-s3://models}/fraud", "pkg.models:Churn", "/m/a.onnx", "/m/b"]
)
_SECONDS = st.sampled_from([0.1, 1, 2.5, 60.0])
_SHARES = st.sampled_from([(100,), (90, 10), (99.99, 0.01), (50.0, 25, 25), (0, 100)])
_UNITS = st.sampled_from([{"header": "x-account-id"}, {"cookie": "s", "salt": "a"}, {"query": "q"}, {"column": "c"}])
_MATCHES = st.sampled_from(["beta", 7, {"prefix": "a"}, {"above": 5.0}, {"exists": False}, {"regex": "(eu|us)-[0-9]+"}])
_POLICIES = {
    "outputs": st.sampled_from(
        [{}, {"finite": False}, {"score": {"min": 0, "max": 1.0}}, {"each": {"finite": {"min": 0}}}]
    ),
    "circuit_breaker": st.sampled_from([True, {}, {"failures": 3, "slow": 0.5}, False]),
    "outlier": st.sampled_from([{}, {"failures": 2}]),
    "retry": st.sampled_from([True, {"attempts": 3}, {"backoff": 0.1, "budget": 0.1}]),
    "cache": st.sampled_from([True, {"ttl": 5, "vary": ["x-country"]}]),
}
_RUN = {
    "replicas": st.integers(1, 4),
    "threads": st.integers(1, 4),
    "environment": st.sampled_from(["auto", "none", ["numpy==1.26.4"]]),
    "batching": st.fixed_dictionaries({}, optional={"max_rows": st.integers(1, 9), "max_wait": st.just(0.0)}),
    "trust_pickle": st.booleans(),
    "place": st.just("worker"),
}


@st.composite
def models(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """An entry of `models`."""
    run = draw(st.fixed_dictionaries({}, optional=_RUN))
    labels = draw(st.sampled_from([{}, {"labels": {"stable": "2", "canary": 3}}]))
    return {"name": name, "artifact": draw(_URIS), **run, **labels}


@st.composite
def endpoints(draw: st.DrawFn) -> dict[str, Any]:
    """What is said of one endpoint."""
    shares = draw(_SHARES)
    names = draw(st.permutations(VERSIONS))[: len(shares) + draw(st.integers(0, 2))]
    models_ = [name for name in names if name != names[-1] or len(names) < 3]
    own = st.fixed_dictionaries({}, optional={**_RUN, **_POLICIES})
    versions: dict[str, Any] = {name: {"model": draw(_URIS), **draw(own)} for name in names}
    if len(names) >= 3 and draw(st.booleans()):
        versions[names[-1]] = draw(
            st.sampled_from(
                [
                    {"cascade": {"steps": models_[:2], "output": "score", "threshold": 0.9}},
                    {
                        "ensemble": {
                            "steps": {"z": {"use": models_[0]}, "a": {"use": models_[1], "soft": True}},
                            "outputs": {"score": {"combine": "mean", "of": ["z.score", "a.score"]}, "first": "z.score"},
                        }
                    },
                ]
            )
        )
    shared = {key: value for key, value in _POLICIES.items() if key != "cache"}
    guide = st.fixed_dictionaries(
        {},
        optional={
            "sticky": _UNITS,
            "rules": st.lists(
                st.fixed_dictionaries(
                    {"when": st.fixed_dictionaries({"header": st.fixed_dictionaries({"x-c": _MATCHES})}),
                     "to": st.sampled_from(names)}
                ),
                max_size=2,
            ),
            "direct": st.booleans(),
            "shadow": st.dictionaries(st.sampled_from(names), st.sampled_from([100, 0.5, {"deadline": 1}])),
            "fallback": st.tuples(
                st.lists(
                    st.sampled_from([*names, {"last_good": {"key": {"header": "x-account-id"}}}]),
                    max_size=3, unique_by=str,
                ),
                st.sampled_from([[], [{"default": {"score": 0.0}}]]),
            ).map(lambda steps: steps[0] + steps[1]),
            "hedge": st.sampled_from([0.5, 0.9]),
            "deadline": _SECONDS,
            "limits": st.sampled_from([{"rate": 10}, {"concurrency": 4, "per_caller": {"rate": 1.5}}]),
            "cache": _POLICIES["cache"],
            **shared,
        },
    )  # fmt: skip
    said = {"versions": versions, "traffic": dict(zip(names, shares, strict=False)), **draw(guide)}
    if len(names) > 1 and draw(st.booleans()):
        said["rollout"] = {"to": names[1], "from": names[0], "steps": draw(st.sampled_from([[1, 5.0, 100], [50]]))}
    return said


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A whole document, as values."""
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    split = draw(st.integers(0, len(names)))
    found: dict[str, Any] = {}
    if names[:split]:
        found["models"] = [draw(models(name)) for name in names[:split]]
    if names[split:]:
        found["endpoints"] = {name: draw(endpoints()) for name in names[split:]}
    settings = st.fixed_dictionaries(
        {},
        optional={
            "server": st.sampled_from([{"port": 0}, {"port": "${PORT:-8080}", "memory_limit": "4GiB"}, {"port": 8080}]),
            "sources": st.sampled_from([{"allowed_hosts": ["models.example.com", "${HOST}"]}, {"offline": True}]),
            "environments": st.sampled_from(
                [{"public": False}, {"index_urls": ["https://${USER}@packages.example.com"]}]
            ),
        },
    )
    return {**found, **draw(settings)}


def said_otherwise(said: Any) -> Any:
    """The same meaning in other words: other orders of names, other spellings of numbers, defaults said."""
    found = _turned(json.loads(json.dumps(said)))
    for model in found.get("models", []):
        model.setdefault("replicas", 1)
        model.setdefault("versions", {"latest": 1})
    for endpoint in found.get("endpoints", {}).values():
        endpoint.setdefault("direct", True)
        endpoint.setdefault("shadow", {})
        endpoint.setdefault("fallback", [])
        for version in endpoint["versions"].values():
            if "model" in version:
                version.setdefault("compile", "off")
                version.setdefault("batching", {"max_rows": 1024})
    if "models" in found:
        found["models"].reverse()
    found.setdefault("server", {}).setdefault("routers", 1)
    return found


def _turned(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        names = list(value) if key in {"ensemble", "steps", "outputs", "default"} else list(value)[::-1]
        return {name: _turned(value[name], name) for name in names}
    if isinstance(value, list):
        return [_turned(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and key in {"v1", "v2", "v10", "rate", "ttl", "deadline"}:
        return float(value)
    return copy.copy(value)
