"""The inputs of an ensemble: as its document declares them, or as its steps take what none of them gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.graph.edges import compatible, is_castable, is_parameter, merged, of_rows, said, widest
from turnout.graph.ensemble_policy import InputPolicy


class _Taker(NamedTuple):
    spec: TensorSpec
    lenient: bool
    path: str


class Given:
    """Collects who takes what, and says then what each input has to be."""

    def __init__(self, declared: Mapping[str, InputPolicy], *, batched: bool) -> None:
        self._declared = {name: one.spec(name) for name, one in declared.items()}
        for name, spec in self._declared.items():
            if batched and not is_parameter(name) and (not spec.shape or spec.shape[0] != -1):
                raise InvalidInput(
                    "its first axis is the row", field=f"inputs.{name}.shape", expected="-1 first",
                    got=str(list(spec.shape)), example="shape: [-1, 4]",
                )  # fmt: skip
        self._takers: dict[str, list[_Taker]] = {}
        self._looked: set[str] = set()
        self._specs: dict[str, TensorSpec] = {}

    @property
    def is_declared(self) -> bool:
        """Whether the document says what they are."""
        return bool(self._declared)

    @property
    def lenient(self) -> bool:
        """Whether numbers of other types are taken: where nothing declares them, and all that take one do."""
        takers = [one for found in self._takers.values() for one in found]
        return not self._declared and bool(takers) and all(one.lenient for one in takers)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """All of them, once they are settled."""
        return tuple(self._specs.values())

    @property
    def names(self) -> Sequence[str]:
        """What they are called."""
        return list(self._specs or self._declared)

    def get(self, name: str) -> TensorSpec | None:
        """One of them, once they are settled."""
        return self._specs.get(name)

    def take(self, name: str, spec: TensorSpec, signature: Signature, path: str) -> None:
        """Somebody takes it as an input of this kind."""
        taker = _Taker(of_rows(spec, signature), signature.lenient, path)
        self._takers.setdefault(name, []).append(taker)

    def look(self, name: str) -> None:
        """Somebody looks at its values."""
        self._looked.add(name)

    def settle(self) -> None:
        """Finds what each has to be. Raises InvalidInput where it would have to be two things."""
        if self._declared:
            self._specs = dict(self._declared)
            return
        for name, takers in self._takers.items():
            found = takers[0].spec
            for taker in takers[1:]:
                self._check_alike(name, found, takers[0], taker)
                found = TensorSpec(
                    name, found.datatype, merged(found.shape, taker.spec.shape), found.columns or taker.spec.columns,
                    found.text and taker.spec.text, found.optional and taker.spec.optional,
                )  # fmt: skip
            datatype = widest([taker.spec for taker in takers])
            self._specs[name] = TensorSpec(name, datatype, found.shape, found.columns, found.text, found.optional)

    def check_used(self, answered: Sequence[str]) -> None:
        """Raises InvalidInput for a declared input that nothing takes."""
        for name in self._declared:
            if name not in self._takers and name not in self._looked and name not in answered:
                raise InvalidInput(
                    "nothing takes this input", field=f"inputs.{name}", expected="one that a step takes", got=repr(name)
                )

    def _check_alike(self, name: str, found: TensorSpec, first: _Taker, taker: _Taker) -> None:
        spec = taker.spec
        castable = (
            first.lenient and taker.lenient and _castable_both(first.spec, spec)
        ) or first.spec.datatype == spec.datatype
        columns = found.columns and spec.columns and found.columns != spec.columns
        if not castable or not compatible(found.shape, spec.shape) or columns:
            raise InvalidInput(
                f"the input {name!r} is used in two ways", field=taker.path, expected=f"{said(found)}, as {first.path}",
                got=said(spec), example=f"inputs: {{{spec.name}: ANOTHER_NAME}}",
            )  # fmt: skip


def _castable_both(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether the wider of both can become either."""
    if "BYTES" in (one.datatype, other.datatype):
        return False
    both = TensorSpec("", widest([one, other]), ())
    return is_castable(both, one) and is_castable(both, other)
