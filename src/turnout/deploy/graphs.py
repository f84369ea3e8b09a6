"""Ensembles and cascades of an endpoint: put in order, and proved before anything of them is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature
from turnout.deploy.endpoint_spec import EndpointSpec
from turnout.deploy.typed import under
from turnout.deploy.variants import VariantSpec
from turnout.graph import cascade, ensemble_proof

#: Gives the signature of a model that is served beside the endpoint, by NAME or NAME@VERSION; None where there is none.
Beside = Callable[[str], Signature | None]


def in_order(endpoint: EndpointSpec) -> list[VariantSpec]:
    """The versions, each after those of the same endpoint that it uses. Raises InvalidInput for a circle."""
    order: list[VariantSpec] = []

    def visit(version: VariantSpec, way: tuple[str, ...]) -> None:
        if version.name in way:
            circle = " -> ".join([*way[way.index(version.name) :], version.name])
            path = f"endpoints.{endpoint.name}.versions.{version.name}"
            raise InvalidInput(f"the versions go in a circle: {circle}", field=path, expected="versions that end")
        if version in order:
            return
        for use in version.uses:
            if (inner := endpoint.version(use)) is not None:
                visit(inner, (*way, version.name))
        order.append(version)

    for version in endpoint.versions:
        visit(version, ())
    return order


def prove(endpoint: EndpointSpec, models: Mapping[str, Signature], beside: Beside) -> dict[str, Any]:
    """For each version that is a graph its signature, and the signatures of all that it uses, as JSON values.

    models: the signatures of the versions that are models. Raises InvalidInput with the path in the document.
    """
    known = dict(models)
    found: dict[str, Any] = {}
    for version in in_order(endpoint):
        if version.model is not None:
            continue
        used: dict[str, Signature] = {}
        for use in version.uses:
            signature = known.get(use) or (None if use == endpoint.name else beside(use))
            if signature is not None:
                used[use] = signature
        path = f"endpoints.{endpoint.name}.versions.{version.name}.{version.kind}"
        try:
            if version.ensemble is not None:
                made = ensemble_proof.prove(version.ensemble, used)
            elif version.cascade is not None:
                made = cascade.prove(version.cascade, used)
            else:
                continue
        except InvalidInput as problem:
            raise under(problem, path) from None
        known[version.name] = made
        uses = {use: signature.to_json() for use, signature in used.items()}
        found[version.name] = {"signature": made.to_json(), "uses": uses}
    return found
