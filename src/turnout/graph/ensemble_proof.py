"""Whether the steps of an ensemble fit together, found before anything of it is served, and what the whole then is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.combine import WEIGHTED, combined_spec
from turnout.graph.edges import compatible, is_sure, misfit, of_rows, said
from turnout.graph.ensemble_policy import Case, CombinePolicy, Condition, EnsemblePolicy, StepPolicy
from turnout.graph.given import Given
from turnout.graph.wiring import Place, Take, Way, WiredOutput, WiredStep, Wiring


def prove(policy: EnsemblePolicy, signatures: Mapping[str, Signature]) -> Signature:
    """The ensemble's own signature, given those of all that it uses.

    Raises InvalidInput with the path in the policy, what was expected and what came: an unknown step, tensor or model,
    a cycle, tensors that do not fit together, an input that nobody gives, a step or a weight that nothing needs.
    """
    return wire(policy, signatures).signature


def wire(policy: EnsemblePolicy, signatures: Mapping[str, Signature]) -> Wiring:
    """The proved ensemble, ready to be run. Raises InvalidInput as `prove` does."""
    return _Proof(policy, signatures).wiring()


class _Proof:
    def __init__(self, policy: EnsemblePolicy, signatures: Mapping[str, Signature]) -> None:
        if not policy.steps or not policy.outputs:
            raise InvalidInput("nothing to answer with", field="steps", expected="at least one step and one output")
        self._policy = policy
        self._signatures = signatures
        self._made: dict[str, Mapping[str, TensorSpec]] = {}
        for step, one in policy.steps.items():
            if not step or "." in step:
                raise InvalidInput("not a name", field=f"steps.{step}", expected="a text without dots", got=repr(step))
            self._check_uses(step, one)
        self._batched = signatures[policy.uses[0]].batched
        self._given = Given(policy.inputs, batched=self._batched)
        #: By step: where each input comes from that anything it uses has.
        self._places = {step: self._places_of(step, one) for step, one in policy.steps.items()}
        self._tested = {step: self._tested_by(step, one) for step, one in policy.steps.items()}

    def wiring(self) -> Wiring:
        order = self._order()
        for step in order:
            self._take_given(step)
        self._given.settle()
        steps = tuple(self._step(step, self._policy.steps[step]) for step in order)
        outputs = tuple(self._output(name, said) for name, said in self._policy.outputs.items())
        specs = tuple(self._output_spec(output) for output in outputs)
        signature = Signature(
            self._given.specs, specs, batched=self._batched, lenient=self._given.lenient, source="ensemble"
        )
        wiring = Wiring(steps, outputs, signature)
        self._check_needed(wiring)
        return wiring

    def _check_uses(self, step: str, one: StepPolicy) -> None:
        for number, case in enumerate(one.cases):
            path = f"steps.{step}.switch[{number}].use" if one.switch else f"steps.{step}.use"
            if case.use not in self._signatures:
                near = get_close_matches(case.use, list(self._signatures), 1)
                raise InvalidInput(
                    "there is no such version or model", field=path,
                    expected=", ".join(self._signatures) or "something that is served", got=repr(case.use),
                    example=f"use: {near[0]}" if near else "",
                )  # fmt: skip
            first = self._policy.uses[0]
            if self._signatures[case.use].batched != self._signatures[first].batched:
                kinds = ("none", "a row axis")
                batched = self._signatures[case.use].batched
                raise InvalidInput(
                    "models with and without a row axis cannot be steps of one ensemble", field=path,
                    expected=f"{kinds[not batched]}, as {first} has", got=f"{kinds[batched]} in {case.use}",
                )  # fmt: skip

    # -- where everything comes from

    def _places_of(self, step: str, one: StepPolicy) -> dict[str, Place]:
        specs = {spec.name: spec for use in one.uses for spec in self._signatures[use].inputs}
        for name in one.inputs:
            if name not in specs:
                raise InvalidInput(
                    f"{' and '.join(one.uses)} has no such input", field=f"steps.{step}.inputs.{name}",
                    expected=", ".join(specs), got=repr(name),
                )  # fmt: skip
        found = {}
        for name, spec in specs.items():
            path = f"steps.{step}.inputs.{name}"
            if name in one.inputs:
                found[name] = self._place(one.inputs[name], path)
            elif not self._given.is_declared or name in self._policy.inputs:
                found[name] = Place("", name)
            elif not all(one.optional for one in self._takers(step, spec.name)):
                raise InvalidInput(
                    "nobody gives this input", field=path, expected=f"one of {self._known()}", got="nothing",
                    example=f"inputs: {{{name}: {next(iter(self._policy.inputs))}}}",
                )  # fmt: skip
        return found

    def _takers(self, step: str, name: str) -> list[TensorSpec]:
        uses = self._policy.steps[step].uses
        return [spec for use in uses if (spec := self._signatures[use].input(name)) is not None]

    def _tested_by(self, step: str, one: StepPolicy) -> list[Place | None]:
        return [
            None if case.when is None else self._place(case.when.tensor, f"steps.{step}.switch[{number}].when.tensor")
            for number, case in enumerate(one.switch)
        ]

    def _place(self, text: str, path: str) -> Place:
        step, dot, tensor = text.partition(".")
        if not dot or text in self._policy.inputs:
            return Place("", text)
        if step in self._policy.steps:
            return Place(step, tensor)
        near = get_close_matches(step, list(self._policy.steps), 1)
        raise InvalidInput(
            "there is no such step", field=path, expected=", ".join(self._policy.steps), got=repr(step),
            example=f"{near[0]}.{tensor}" if near else "",
        )  # fmt: skip

    def _needs(self, step: str) -> list[tuple[str, str]]:
        """The steps that have to be done before one, each with the path that says so."""
        found = [(place.step, f"steps.{step}.inputs.{name}") for name, place in self._places[step].items()]
        for number, place in enumerate(self._tested[step]):
            if place is not None:
                found.append((place.step, f"steps.{step}.switch[{number}].when.tensor"))
        return [(needed, path) for needed, path in found if needed]

    def _order(self) -> list[str]:
        """The steps, each after those that it needs."""
        order: dict[str, None] = {}

        def visit(step: str, way: Sequence[str], path: str) -> None:
            if step in way:
                circle = " -> ".join([*way[way.index(step) :], step])
                raise InvalidInput(f"the steps go in a circle: {circle}", field=path, expected="steps that end")
            if step in order:
                return
            for needed, where in self._needs(step):
                visit(needed, [*way, step], where)
            order[step] = None

        for step in self._policy.steps:
            visit(step, (), f"steps.{step}")
        return list(order)

    def _take_given(self, step: str) -> None:
        """Notes what a step takes of the ensemble's own inputs."""
        for name, place in self._places[step].items():
            for use in self._policy.steps[step].uses:
                spec = self._signatures[use].input(name)
                if spec is not None and not place.step:
                    self._given.take(place.tensor, spec, self._signatures[use], f"steps.{step}.inputs.{name}")
        for tested in self._tested[step]:
            if tested is not None and not tested.step:
                self._given.look(tested.tensor)

    # -- what fits

    def _step(self, step: str, one: StepPolicy) -> WiredStep:
        ways = tuple(self._way(step, number, case) for number, case in enumerate(one.cases))
        made = [
            {spec.name: of_rows(spec, self._signatures[use]) for spec in self._signatures[use].outputs}
            for use in one.uses
        ]
        common = [name for name in made[0] if all(name in other for other in made)]
        names = one.outputs or {name: name for name in common}
        for name, inner in names.items():
            if inner not in common:
                raise InvalidInput(
                    f"{' and '.join(one.uses)} has no such output", field=f"steps.{step}.outputs.{name}",
                    expected=", ".join(common) or "an output that all of them have", got=repr(inner),
                )  # fmt: skip
        self._made[step] = {
            name: self._alike([other[inner] for other in made], f"steps.{step}", inner) for name, inner in names.items()
        }
        needs = frozenset(needed for needed, _ in self._needs(step))
        return WiredStep(step, one, ways, tuple(names.items()), needs)

    def _way(self, step: str, number: int, case: Case) -> Way:
        signature = self._signatures[case.use]
        takes = []
        for spec in signature.inputs:
            place = self._places[step].get(spec.name)
            if place is None:
                continue
            path = f"steps.{step}.inputs.{spec.name}"
            found, wanted = self._find(place, path, optional=spec.optional), of_rows(spec, signature)
            why = misfit(found, wanted, lenient=signature.lenient)
            if why:
                raise InvalidInput(
                    f"the tensors do not fit together: {place} {why}", field=path, expected=said(wanted),
                    got=said(found),
                )  # fmt: skip
            takes.append(Take(spec.name, place, None if is_sure(found, wanted) else wanted))
        tested = self._tested[step][number] if case.when is not None else None
        if case.when is not None and tested is not None:
            self._check_condition(case.when, tested, f"steps.{step}.switch[{number}].when")
        return Way(case.use, tuple(takes), case.when, tested)

    def _check_condition(self, condition: Condition, tested: Place, path: str) -> None:
        spec = self._find(tested, f"{path}.tensor")
        text = isinstance(condition.equals, str)
        orders = condition.above is not None or condition.below is not None
        if text != (spec.datatype == "BYTES") and condition.equals is not None:
            expected = "a text" if spec.datatype == "BYTES" else "a number"
            raise InvalidInput(
                f"{tested} is {said(spec)}", field=f"{path}.equals", expected=expected, got=repr(condition.equals)
            )
        if orders and spec.dtype.kind not in "fiu":
            raise InvalidInput("not a number", field=f"{path}.tensor", expected="a tensor of numbers", got=said(spec))

    def _find(self, place: Place, path: str, *, optional: bool = False) -> TensorSpec:
        if not place.step:
            found = self._given.get(place.tensor)
            if found is None:
                raise InvalidInput(
                    "there is no such input, and no step takes one of that name", field=path,
                    expected=self._known() or "STEP.OUTPUT", got=repr(place.tensor),
                    example="inputs: {NAME: {datatype: FP32, shape: [-1]}}",
                )  # fmt: skip
            if found.optional and not optional:
                raise InvalidInput("callers may leave it out", field=path, expected="what is there", got=str(place))
            return found
        made = self._made.get(place.step, {})
        if place.tensor not in made:
            known = ", ".join(f"{place.step}.{name}" for name in made)
            raise InvalidInput("there is no such tensor", field=path, expected=known or "STEP.OUTPUT", got=str(place))
        return made[place.tensor]

    def _known(self) -> str:
        made = [f"{step}.{name}" for step, specs in self._made.items() for name in specs]
        return ", ".join([*self._given.names, *made])

    def _alike(self, specs: Sequence[TensorSpec], path: str, name: str) -> TensorSpec:
        first = specs[0]
        for other in specs[1:]:
            if other.datatype != first.datatype or not compatible(first.shape, other.shape):
                raise InvalidInput(
                    f"the ways differ in their output {name!r}", field=path, expected=said(first), got=said(other)
                )
        loose = all(other.shape == first.shape for other in specs)
        shape = first.shape if loose else tuple(
            a if all(other.shape[axis] == a for other in specs) else -1 for axis, a in enumerate(first.shape)
        )  # fmt: skip
        return TensorSpec(first.name, first.datatype, shape, first.columns, first.text)

    # -- what comes out

    def _output(self, name: str, said: str | CombinePolicy) -> WiredOutput:
        path = f"outputs.{name}"
        if isinstance(said, str):
            return WiredOutput(name, "", (self._place(said, path),), (1.0,))
        places = tuple(self._place(one, f"{path}.of[{number}]") for number, one in enumerate(said.of))
        steps = self._policy.steps
        weights = said.weights or tuple(steps[one.step].weight if one.step else 1.0 for one in places)
        return WiredOutput(name, said.combine, places, weights)

    def _output_spec(self, output: WiredOutput) -> TensorSpec:
        path = f"outputs.{output.name}"
        if not output.way:
            found = self._find(output.members[0], path)
            return TensorSpec(output.name, found.datatype, found.shape, found.columns, found.text)
        specs = [self._find(place, f"{path}.of[{number}]") for number, place in enumerate(output.members)]
        return combined_spec(output.name, output.way, specs, path)

    def _check_needed(self, wiring: Wiring) -> None:
        """Raises InvalidInput for a step whose outputs nothing uses, and for a weight that nothing weighs with."""
        needed = wiring.needed(wiring.outputs)
        weighed = {
            place.step
            for output, said in zip(wiring.outputs, self._policy.outputs.values(), strict=True)
            for place in output.members
            if isinstance(said, CombinePolicy) and said.combine in WEIGHTED and said.weights is None
        }
        for step, one in self._policy.steps.items():
            if step not in needed:
                raise InvalidInput(
                    "nothing needs this step", field=f"steps.{step}", expected="a step that an output needs",
                    example=f"outputs: {{NAME: {step}.{next(iter(self._made[step]), 'OUTPUT')}}}",
                )  # fmt: skip
            if one.weight != 1.0 and step not in weighed:
                raise InvalidInput(
                    "nothing weighs with it", field=f"steps.{step}.weight", got=f"{one.weight:g}",
                    expected=f"an output that combines it by {', '.join(sorted(WEIGHTED))}, without weights of its own",
                )  # fmt: skip
        answered = [place.tensor for output in wiring.outputs for place in output.members if not place.step]
        self._given.check_used(answered)
