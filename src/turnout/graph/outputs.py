"""What a valid answer is, beyond what the signature says: a score that is NaN, or 17, is refused, not given on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from turnout.core.errors import InvalidInput, InvalidOutput
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array

#: Up to so many numbers, adding them up in Python is quicker than a call of numpy.
_FEW = 32
_SHOWN = 8


class OutputRange(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What one output may hold: numbers from `min` to `max`, or only these `values`; None where anything may be."""

    min: float | None = None
    max: float | None = None
    values: tuple[str | int | float | bool, ...] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidInput."""
        if self.values is not None and not self.values:
            raise InvalidInput("no value would be allowed", field="values", expected="at least one value")
        low, high = self.bounds
        if not low <= high:
            raise InvalidInput("nothing is between them", field="min", expected=f"at most {high:g}", got=f"{low:g}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends, infinite where there is none."""
        return -math.inf if self.min is None else self.min, math.inf if self.max is None else self.max


class OutputsPolicy(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """finite: NaN and infinity are refused in every output of floats. shape: so is a shape that the signature has not.

    each: what single outputs may hold, by name.
    """

    finite: bool = True
    shape: bool = True
    each: dict[str, OutputRange] = {}

    @classmethod
    def from_spec(cls, said: Mapping[str, Any]) -> OutputsPolicy:
        """From the short form of a spec, where outputs stand beside the settings: `{finite: true, score: {min: 0}}`.

        An output that is called like a setting is given under `each`. Raises InvalidInput.
        """
        own = {name: value for name, value in said.items() if name in cls.__struct_fields__}
        each = {**own.pop("each", {}), **{name: value for name, value in said.items() if name not in own}}
        each.pop("each", None)
        try:
            return msgspec.convert({**own, "each": each}, cls)
        except msgspec.ValidationError as problem:
            example = "outputs: {finite: true, score: {min: 0, max: 1}}"
            raise InvalidInput(str(problem), field="outputs", example=example) from None


class OutputCheck:
    """Raises InvalidOutput where the child's answer breaks the policy."""

    def __init__(self, child: Servable, policy: OutputsPolicy, signature: Signature) -> None:
        """Raises InvalidInput where the policy names what the signature has not."""
        self._child = child
        self.policy = policy
        floats = tuple(spec.name for spec in signature.outputs if spec.dtype.kind == "f") if policy.finite else ()
        self._floats = floats
        self._shapes = _shapes(signature) if policy.shape else ()
        self._checks = _checks(policy, signature)

    def __repr__(self) -> str:
        said = ["finite"] if self.policy.finite else []
        return f"OutputCheck({', '.join([*said, *self.policy.each])})"

    @property
    def children(self) -> Mapping[str, Servable]:
        """Who answers."""
        return {"": self._child}

    async def infer(self, request: InferRequest) -> InferResponse:
        """The child's answer if it is valid. Raises InvalidOutput, and what the child raises."""
        response = await self._child.infer(request)
        outputs = response.outputs
        for name, rank, inner in self._shapes:
            found = outputs.get(name)
            if found is not None and (found.ndim != rank or (inner is not None and found.shape[1:] != inner)):
                raise InvalidOutput(f"the output {name!r} has shape {list(found.shape)}, not what the signature says")
        for name in self._floats:
            found = outputs.get(name)
            if found is not None and not is_finite(found):
                raise InvalidOutput(f"the output {name!r} holds {_odd(found)}, which is no number")
        for name, check in self._checks:
            found = outputs.get(name)
            if found is not None:
                check.refuse(found)
        return response


def is_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite."""
    if array.size <= _FEW:
        # A sum is finite only if all in it is; the reverse does not hold, and then it is looked at closely.
        values = array.tolist() if array.ndim == 1 else array.ravel().tolist()
        if math.isfinite(sum(values)):
            return True
    return bool(np.isfinite(array).all())


def _odd(array: Array) -> str:
    flat = array.ravel()
    return str(float(flat[~np.isfinite(flat)][0]))


class _Range:
    __slots__ = ("_high", "_low", "_name")

    def __init__(self, name: str, low: float, high: float) -> None:
        self._name = name
        self._low = low
        self._high = high

    def refuse(self, array: Array) -> None:
        """NaN is in no range and out of none: whether it may be there, `finite` says."""
        if array.size <= _FEW:  # as in is_finite
            for value in array.ravel().tolist():
                if value < self._low or value > self._high:
                    break
            else:
                return
        least, most = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
        if least < self._low or most > self._high:
            got = float(least) if least < self._low else float(most)
            raise InvalidOutput(f"the output {self._name!r} holds {got:g}, not from {self._low:g} to {self._high:g}")


class _Values:
    __slots__ = ("_allowed", "_name")

    def __init__(self, name: str, allowed: frozenset[Any]) -> None:
        self._name = name
        self._allowed = allowed

    def refuse(self, array: Array) -> None:
        found = set(array.ravel().tolist()) - self._allowed
        if found:
            shown = ", ".join(sorted(map(_text, self._allowed))[:_SHOWN])
            raise InvalidOutput(f"the output {self._name!r} holds {_text(found.pop())[:60]}, which is none of {shown}")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _shapes(signature: Signature) -> tuple[tuple[str, int, tuple[int, ...] | None], ...]:
    """Name, number of axes, and the inner shape where all of it is fixed."""
    return tuple(
        (spec.name, len(spec.shape), None if -1 in spec.shape[1:] else spec.shape[1:]) for spec in signature.outputs
    )


def _checks(policy: OutputsPolicy, signature: Signature) -> tuple[tuple[str, _Range | _Values], ...]:
    specs = {spec.name: spec for spec in signature.outputs}
    found: list[tuple[str, _Range | _Values]] = []
    for name, allowed in policy.each.items():
        spec = specs.get(name)
        if spec is None:
            known = ", ".join(map(repr, specs))
            raise InvalidInput(f"there is no output {name!r}", field=f"outputs.{name}", expected=f"one of {known}")
        if allowed.bounds != (-math.inf, math.inf):
            if spec.dtype.kind not in "fiu":
                raise InvalidInput(
                    "only numbers have a range", field=f"outputs.{name}", expected="values: [...]", got=spec.datatype
                )
            found.append((name, _Range(name, *allowed.bounds)))
        if allowed.values is not None:
            found.append((name, _Values(name, frozenset(_allowed(spec, name, allowed.values)))))
    return tuple(found)


def _allowed(spec: TensorSpec, name: str, values: tuple[Any, ...]) -> list[Any]:
    """The values as an array of that type gives them back."""
    kinds: dict[str, tuple[type, ...]] = {"O": (str,), "b": (bool,), "f": (int, float)}
    fits = kinds.get(spec.dtype.kind, (int,))
    for value in values:
        if not isinstance(value, fits) or (isinstance(value, bool) and bool not in fits):
            raise InvalidInput(
                "not a value of that output", field=f"outputs.{name}.values", expected=spec.datatype, got=repr(value)
            )
    if spec.dtype.kind == "O":
        return [value.encode() for value in values]
    return np.asarray(values, dtype=spec.dtype).tolist()  # type: ignore[no-any-return]  # a list, of one axis
