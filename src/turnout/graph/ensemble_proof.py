"""Whether the steps of an ensemble fit together, found before anything of it is served, and what the whole then is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import dtype_name
from turnout.graph.combine import ANY_TYPE
from turnout.graph.ensemble import CombinePolicy, EnsemblePolicy, StepPolicy, sources_of


def prove(policy: EnsemblePolicy, signatures: Mapping[str, Signature]) -> Signature:
    """The ensemble's own signature, given those of all that it uses.

    Raises InvalidInput with the path in the policy: an unknown step, tensor or model, a cycle, tensors that do not fit
    together, an input that nobody gives, a step that nothing needs.
    """
    return _Proof(policy, signatures).signature()


class _Proof:
    def __init__(self, policy: EnsemblePolicy, signatures: Mapping[str, Signature]) -> None:
        self._policy = policy
        self._signatures = signatures
        self._given: dict[str, TensorSpec] = {}
        self._made: dict[str, Mapping[str, TensorSpec]] = {}
        if not policy.steps or not policy.outputs:
            raise InvalidInput("nothing to answer with", field="steps", expected="at least one step and one output")
        for name in (*policy.steps, *policy.outputs):
            if not name or "." in name:
                raise InvalidInput("not a name", field=f"steps.{name}", expected="a text without dots", got=repr(name))
        names = {use: [spec.name for spec in one.inputs] for use, one in signatures.items()}
        for step, one in policy.steps.items():
            self._check_uses(step, one)
        self._sources = {step: sources_of(one, names) for step, one in policy.steps.items()}

    def signature(self) -> Signature:
        for step in self._order():
            self._made[step] = self._step(step, self._policy.steps[step])
        outputs = tuple(self._output(name, said) for name, said in self._policy.outputs.items())
        self._check_needed()
        batched = all(signature.batched for signature in self._signatures.values())
        return Signature(tuple(self._given.values()), outputs, batched=batched, source="ensemble")

    def _check_uses(self, step: str, one: StepPolicy) -> None:
        for use in one.uses:
            if use not in self._signatures:
                known = ", ".join(self._signatures) or "nothing"
                near = get_close_matches(use, list(self._signatures), 1)
                raise InvalidInput(
                    "there is no such version or model", field=f"steps.{step}.use", expected=known, got=repr(use),
                    example=near[0] if near else "",
                )  # fmt: skip

    def _needs(self, step: str) -> list[tuple[str, str]]:
        """The steps that have to be done before one, each with the path that says so."""
        places = [(place, f"steps.{step}.inputs.{name}") for name, place in self._sources[step].items()]
        for number, case in enumerate(self._policy.steps[step].switch):
            if case.when is not None:
                places.append((case.when.tensor, f"steps.{step}.switch[{number}].when.tensor"))
        return [(place.partition(".")[0], path) for place, path in places if "." in place]

    def _order(self) -> list[str]:
        """The steps, each after those that it needs."""
        order: list[str] = []
        state: dict[str, bool] = {}

        def visit(step: str, way: Sequence[str], path: str) -> None:
            if step not in self._policy.steps:
                known = ", ".join(self._policy.steps)
                raise InvalidInput("there is no such step", field=path, expected=known, got=repr(step))
            if state.get(step):
                return
            if step in way:
                circle = " -> ".join([*way[way.index(step) :], step])
                raise InvalidInput(f"the steps go in a circle: {circle}", field=path, expected="steps that end")
            for needed, where in self._needs(step):
                visit(needed, [*way, step], where)
            state[step] = True
            order.append(step)

        for step in self._policy.steps:
            visit(step, (), f"steps.{step}")
        return order

    def _step(self, step: str, one: StepPolicy) -> Mapping[str, TensorSpec]:
        for use in one.uses:
            for spec in self._signatures[use].inputs:
                place = self._sources[step].get(spec.name)
                if place is None and spec.optional:
                    continue
                self._check_fits(spec, place or spec.name, f"steps.{step}.inputs.{spec.name}")
        known = {spec.name for use in one.uses for spec in self._signatures[use].inputs}
        for name in one.inputs:
            if name not in known:
                raise InvalidInput(
                    f"{' and '.join(one.uses)} has no such input", field=f"steps.{step}.inputs.{name}",
                    expected=", ".join(sorted(known)), got=repr(name),
                )  # fmt: skip
        for number, case in enumerate(one.switch):
            if case.when is not None:
                self._find(case.when.tensor, f"steps.{step}.switch[{number}].when.tensor")
        made = [{spec.name: spec for spec in self._signatures[use].outputs} for use in one.uses]
        common = [name for name in made[0] if all(name in other for other in made)]
        return {name: self._joined([other[name] for other in made], f"steps.{step}", name) for name in common}

    def _check_fits(self, wanted: TensorSpec, place: str, path: str) -> None:
        if "." not in place:
            known = self._given.get(place)
            if known is None:
                self._given[place] = TensorSpec(
                    place, wanted.datatype, wanted.shape, wanted.columns, wanted.text, wanted.optional
                )
                return
            if known.datatype != wanted.datatype or not _compatible(known.shape, wanted.shape):
                raise InvalidInput(
                    f"the input {place!r} is used in two ways", field=path, expected=_said(known), got=_said(wanted)
                )
            return
        found = self._find(place, path)
        if found.datatype != wanted.datatype or not _compatible(found.shape, wanted.shape):
            raise InvalidInput("the tensors do not fit together", field=path, expected=_said(wanted), got=_said(found))

    def _find(self, place: str, path: str) -> TensorSpec:
        step, dot, output = place.partition(".")
        if not dot:
            if place not in self._given:
                raise InvalidInput(
                    "no step takes this input",
                    field=path,
                    expected="an input of a step, or STEP.OUTPUT",
                    got=repr(place),
                )
            return self._given[place]
        made = self._made.get(step)
        if made is None or output not in made:
            known = ", ".join(f"{one}.{name}" for one, specs in self._made.items() for name in specs)
            raise InvalidInput("there is no such tensor", field=path, expected=known or "STEP.OUTPUT", got=repr(place))
        return made[output]

    def _joined(self, specs: Sequence[TensorSpec], path: str, name: str) -> TensorSpec:
        first = specs[0]
        for other in specs[1:]:
            if other.datatype != first.datatype or not _compatible(first.shape, other.shape):
                raise InvalidInput(
                    f"the ways differ in their output {name!r}", field=path, expected=_said(first), got=_said(other)
                )
        return first

    def _output(self, name: str, said: str | CombinePolicy) -> TensorSpec:
        path = f"outputs.{name}"
        if isinstance(said, str):
            found = self._find(said, path)
            return TensorSpec(name, found.datatype, found.shape, found.columns, found.text)
        specs = [self._find(place, f"{path}.of[{number}]") for number, place in enumerate(said.of)]
        first = specs[0]
        for number, spec in enumerate(specs):
            if not _compatible(first.shape, spec.shape) or len(first.shape) != len(spec.shape):
                raise InvalidInput(
                    "of another shape than the first",
                    field=f"{path}.of[{number}]",
                    expected=_said(first),
                    got=_said(spec),
                )
            if said.combine in ANY_TYPE and spec.datatype != first.datatype:
                raise InvalidInput(
                    "of another type than the first",
                    field=f"{path}.of[{number}]",
                    expected=_said(first),
                    got=_said(spec),
                )
            if said.combine not in ANY_TYPE and spec.dtype.kind not in "fiu":
                raise InvalidInput(f"{said.combine} needs numbers", field=f"{path}.of[{number}]", got=_said(spec))
        return _combined(name, said, specs)

    def _check_needed(self) -> None:
        """Raises InvalidInput for a step whose outputs nothing uses."""
        wanted = {place.partition(".")[0] for said in self._policy.outputs.values() for place in _places(said)}
        while True:
            more = {needed for step in wanted if step in self._policy.steps for needed, _ in self._needs(step)}
            if more <= wanted:
                break
            wanted |= more
        for step in self._policy.steps:
            if step not in wanted:
                raise InvalidInput(
                    "nothing needs this step", field=f"steps.{step}", expected="a step that an output needs"
                )


def _places(said: str | CombinePolicy) -> Sequence[str]:
    return (said,) if isinstance(said, str) else said.of


def _combined(name: str, said: CombinePolicy, specs: Sequence[TensorSpec]) -> TensorSpec:
    first = specs[0]
    if said.combine == "stack":
        return TensorSpec(name, first.datatype, (first.shape[0], len(specs), *first.shape[1:]), (), first.text)
    if said.combine == "argmax":
        return TensorSpec(name, "INT64", first.shape[:-1])
    if said.combine in {"mean", "weighted_mean", "median"}:
        datatype = dtype_name(np.result_type(np.float32, *[spec.dtype for spec in specs]))
        return TensorSpec(name, datatype, first.shape, first.columns)
    if said.combine in {"min", "max"}:
        return TensorSpec(name, dtype_name(np.result_type(*[spec.dtype for spec in specs])), first.shape, first.columns)
    return TensorSpec(name, first.datatype, first.shape, first.columns, first.text)


def _compatible(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _said(spec: TensorSpec) -> str:
    return f"{spec.datatype}[{', '.join('n' if size == -1 else str(size) for size in spec.shape)}]"
