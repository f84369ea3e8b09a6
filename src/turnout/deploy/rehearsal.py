"""An endpoint's trees are built before anything of them is in force, as routers will: what does not fit is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.deploy.build import Builder, build_version
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.live import Live, LiveVersion, Trees
from turnout.deploy.managed import Version
from turnout.deploy.plan import Guide
from turnout.deploy.typed import under


def rehearsed(guide: Guide, loaded: Mapping[str, Version]) -> Trees:
    """The trees, over versions that run nowhere. loaded: by name. Raises InvalidInput for what cannot be built."""
    versions: dict[str, LiveVersion] = {}
    for name, version in loaded.items():
        if version.spec is not None and version.description:
            signature = Signature.from_json(version.description["signature"])
            versions[name] = build_version(version.spec, signature, version.description["format"])
    return Builder(Live())(str(guide.endpoint["name"]), guide, versions)


def rehearse(endpoint: EndpointSpec, guide: Guide, loaded: Mapping[str, Version]) -> None:
    """Raises InvalidInput, with the path in the document, where the endpoint could not answer as it is meant to."""
    path = f"endpoints.{endpoint.name}"
    try:
        trees = rehearsed(guide, loaded)
    except InvalidInput as problem:
        raise under(problem, path) from None
    # What a request has to say is said by the version with most of the traffic, which a rollout changes at its end.
    leading = {endpoint.default, endpoint.rollout.to if endpoint.rollout is not None else endpoint.default}
    for name in dict.fromkeys(_asked_unnamed(endpoint)):
        for one in sorted(leading - {name}):
            if wrong := misfit(trees.versions[one].signature, trees.versions[name].signature):
                raise InvalidInput(
                    f"requests for {one} would not do for it: {wrong}",
                    field=f"{path}.versions.{name}",
                    expected=f"the inputs and outputs of {one}, or no requests but those that name it",
                )


def _asked_unnamed(endpoint: EndpointSpec) -> Iterator[str]:
    """The versions that get requests of callers who have not named them."""
    yield from (name for name, share in endpoint.traffic.items() if share > 0)
    yield from (rule.to for rule in endpoint.split.rules)
    yield from (step.version for step in endpoint.steps if step.version)
    yield from (name for name, policy in endpoint.shadow.items() if policy.percent)
    if endpoint.rollout is not None:
        yield endpoint.rollout.to


def misfit(first: Signature, other: Signature) -> str:
    """Why what is a request for one model is none for another, or its answer no answer; "" where all fits."""
    outputs = {spec.name for spec in other.outputs}
    for spec in other.inputs:
        given = first.input(spec.name)
        if given is None and not spec.optional:
            return f"they have no input {spec.name!r}"
        if given is not None and not _alike(given, spec):
            return f"their input {spec.name!r} is {_shown(given)} and not {_shown(spec)}"
    if first.outputs and not any(spec.name in outputs for spec in first.outputs):
        return f"it has no output {first.outputs[0].name!r}"
    if first.batched is not other.batched:
        return "of the two only one answers row by row"
    return ""


def _alike(given: TensorSpec, spec: TensorSpec) -> bool:
    """Numbers of different types may do; text is no number, and a shape is a shape."""
    text = (given.datatype == "BYTES") is (spec.datatype == "BYTES")
    there, wanted = given.shape[1:], spec.shape[1:]
    return (
        text
        and len(there) == len(wanted)
        and all(-1 in pair or pair[0] == pair[1] for pair in zip(there, wanted, strict=True))
    )


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype}{list(spec.shape)}"
