"""Whether what ensembles and cascades are made of is there, and never leads back to itself: told by names alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from turnout.core.errors import InvalidInput
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.problems import Problems
from turnout.deploy.spec import ModelSpec
from turnout.deploy.typed import unknown
from turnout.deploy.variants import VariantSpec


def check_uses(models: Sequence[ModelSpec], endpoints: Sequence[EndpointSpec]) -> None:
    """Raises InvalidInput for what is used and is not there, and for circles, within one endpoint or over several."""
    problems = Problems()
    known = {endpoint.name: endpoint for endpoint in endpoints}
    names = [model.name for model in models]
    for endpoint in endpoints:
        for version in endpoint.versions:
            for path, use in _places(endpoint, version):
                _check_use(use, path, endpoint, known, names, problems)
    problems.check()
    for endpoint in endpoints:
        circle = _circle(endpoint.name, known)
        if circle is not None:
            problems.add(
                InvalidInput(
                    f"they go in a circle: {' -> '.join(circle)}", field=f"endpoints.{circle[0].partition('@')[0]}",
                    expected="versions that end with models",
                )
            )  # fmt: skip
            break
    problems.check()


def places_of(model: str, endpoints: Iterable[EndpointSpec]) -> Iterator[tuple[str, str]]:
    """Where graphs use a model that is served by itself: the path, and the version or label, "" for the default."""
    for endpoint in endpoints:
        for variant in endpoint.versions:
            for path, use in _places(endpoint, variant):
                name, _, version = use.partition("@")
                if name == model and endpoint.version(use) is None:
                    yield path, version


def _places(endpoint: EndpointSpec, version: VariantSpec) -> Iterator[tuple[str, str]]:
    """What a version uses, each with its path."""
    path = f"endpoints.{endpoint.name}.versions.{version.name}.{version.kind}.steps"
    if version.ensemble is not None:
        for name, step in version.ensemble.steps.items():
            if step.use:
                yield f"{path}.{name}.use", step.use
            for number, case in enumerate(step.switch):
                yield f"{path}.{name}.switch[{number}].use", case.use
    if version.cascade is not None:
        for number, use in enumerate(version.cascade.steps):
            yield f"{path}[{number}]", use


def _check_use(
    use: str, path: str, endpoint: EndpointSpec, endpoints: Mapping[str, EndpointSpec], models: Sequence[str],
    problems: Problems,
) -> None:  # fmt: skip
    if endpoint.version(use) is not None:
        return
    name, _, version = use.partition("@")
    other = endpoints.get(name)
    if name in models or (other is not None and (not version or other.version(version) is not None)):
        return
    if other is not None:
        there = [f"{name}@{one.name}" for one in other.versions]
    else:
        there = [*(one.name for one in endpoint.versions), *models, *(one for one in endpoints if one != endpoint.name)]
    problems.add(unknown(path, use, there, "there is no such version, model or endpoint", "use: NAME"))


def _circle(first: str, endpoints: Mapping[str, EndpointSpec]) -> list[str] | None:
    """The first way back to something on the way; places are ENDPOINT and ENDPOINT@VERSION."""
    done: set[str] = set()

    def visit(place: str, way: tuple[str, ...]) -> list[str] | None:
        if place in way:
            return [*way[way.index(place) :], place]
        if place in done:
            return None
        done.add(place)
        for inner in _leads_to(place, endpoints):
            if (found := visit(inner, (*way, place))) is not None:
                return found
        return None

    return visit(first, ())


def _leads_to(place: str, endpoints: Mapping[str, EndpointSpec]) -> list[str]:
    name, _, version = place.partition("@")
    endpoint = endpoints.get(name)
    if endpoint is None:
        return []
    if not version:
        return [f"{name}@{one.name}" for one in endpoint.versions]
    found = endpoint.version(version)
    if found is None:
        return []
    return [f"{name}@{use}" if endpoint.version(use) is not None else use for use in found.uses]
