"""Whether the steps of a cascade can stand in for each other, found before it is served, and what the whole then is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.cascade_policy import CascadePolicy
from turnout.graph.confidence import check_measured
from turnout.graph.edges import compatible, of_rows, said, widest
from turnout.graph.given import Given


def prove(policy: CascadePolicy, signatures: Mapping[str, Signature]) -> Signature:
    """The cascade's own signature: what any of its steps takes, and what all of them give.

    Raises InvalidInput with the path in the policy, what was expected and what came.
    """
    given = Given({}, batched=True)
    for number, step in enumerate(policy.steps):
        _check_step(step, number, signatures)
        for spec in signatures[step].inputs:
            given.take(spec.name, spec, signatures[step], f"steps[{number}].inputs.{spec.name}")
    given.settle()
    outputs = [
        {spec.name: of_rows(spec, signatures[step]) for spec in signatures[step].outputs} for step in policy.steps
    ]
    _check_measured(policy, outputs)
    common = [name for name in outputs[0] if all(name in other for other in outputs)]
    if not common:
        raise InvalidInput(
            "the steps have no output in common", field="steps", got=", ".join(outputs[-1]),
            expected=f"some of {', '.join(outputs[0])}, as {policy.steps[0]} has them",
        )  # fmt: skip
    joined = tuple(_joined([other[name] for other in outputs], policy.steps) for name in common)
    return Signature(given.specs, joined, lenient=given.lenient, source="cascade")


def _check_step(step: str, number: int, signatures: Mapping[str, Signature]) -> None:
    path = f"steps[{number}]"
    if step not in signatures:
        known = ", ".join(signatures) or "something that is served"
        raise InvalidInput("no such version or model", field=path, expected=known, got=repr(step))
    if not signatures[step].batched:
        raise InvalidInput(
            "it has no rows that could go on", field=path, expected="a model with a row axis", got=repr(step)
        )


def _check_measured(policy: CascadePolicy, outputs: Sequence[Mapping[str, TensorSpec]]) -> None:
    for step, known in zip(policy.steps[:-1], outputs[:-1], strict=True):
        if policy.output not in known:
            raise InvalidInput(
                "no such output", field="output", expected=f"{', '.join(known)}, which {step} has",
                got=repr(policy.output), example=f"output: {next(iter(known), 'NAME')}",
            )  # fmt: skip
        check_measured(known[policy.output], policy.measure, "output")


def _joined(specs: Sequence[TensorSpec], steps: Sequence[str]) -> TensorSpec:
    """An output whose rows may come from any of the steps."""
    first = specs[0]
    shape = first.shape
    for number, other in enumerate(specs[1:], 1):
        kinds = {first.dtype.kind, other.dtype.kind}
        alike = first.datatype == other.datatype or kinds in ({"f"}, {"i"}, {"u"})
        order = first.columns and other.columns and first.columns != other.columns
        if not alike or order or not compatible(shape, other.shape):
            raise InvalidInput(
                f"it differs in its output {first.name!r}", field=f"steps[{number}]",
                expected=f"{said(first)}, as {steps[0]} has it", got=said(other),
            )  # fmt: skip
        shape = tuple(a if a == b else -1 for a, b in zip(shape, other.shape, strict=True))
    return TensorSpec(first.name, widest(specs), (-1, *shape[1:]), first.columns, first.text)
