"""An answer that is known before anybody asks: what a fallback says when nothing else can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, bytes_array

_KEPT_ROWS = 64


class Constant:
    """Gives the same values for every row, in the types and shapes of the signature. Takes no time and never fails.

    values: of every output of the signature, the value of one row: a number, text or truth value for all its elements,
    or a nested list of the row's shape.
    """

    __slots__ = ("_made", "_rows", "_signature", "name")
    #: Needs no slice of a deadline.
    instant = True

    def __init__(self, values: Mapping[str, Any], signature: Signature, *, name: str = "default") -> None:
        """Raises InvalidInput where the values are not those of the signature."""
        specs = {spec.name: spec for spec in signature.outputs}
        expected = ", ".join(f"{spec.name}: {spec.datatype}" for spec in signature.outputs)
        for given in values:
            if given not in specs:
                raise InvalidInput(f"there is no output {given!r}", field=f"default.{given}", expected=expected)
        missing = [name for name in specs if name not in values]
        if missing:
            raise InvalidInput(
                f"nothing is said for {', '.join(map(repr, missing))}",
                field="default",
                expected=expected,
                example=f"default: {{{', '.join(f'{name}: {_example(spec)}' for name, spec in specs.items())}}}",
            )
        self.name = name
        self._signature = signature
        self._rows = {name: _row(spec, values[name], signature.batched) for name, spec in specs.items()}
        self._made: dict[int, dict[str, Array]] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}: {array.tolist()!r}" for name, array in self._rows.items())
        return f"Constant({shown if len(shown) <= 80 else shown[:77] + '...'})"

    async def infer(self, request: InferRequest) -> InferResponse:
        """The values for each row of the request, of those outputs that were asked for."""
        return self.answer(request)

    def answer(self, request: InferRequest) -> InferResponse:
        """The same, at once."""
        rows = request.rows if self._signature.batched else 1
        outputs = self._made.get(rows)
        if outputs is None:
            outputs = {name: self._repeated(array, rows) for name, array in self._rows.items()}
            if rows <= _KEPT_ROWS:
                self._made[rows] = outputs
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs if name in outputs} or outputs
        return InferResponse(outputs, request.model, self.name)

    def _repeated(self, array: Array, rows: int) -> Array:
        found = np.repeat(array[None], rows, axis=0) if self._signature.batched else array
        found.flags.writeable = False
        return found


def _row(spec: TensorSpec, value: Any, batched: bool) -> Array:
    """One row of an output, as the signature has it."""
    field = f"default.{spec.name}"
    shape = spec.shape[1:] if batched else spec.shape
    flat, given = _flatten(value, field)
    kinds: dict[str, tuple[type, ...]] = {"O": (str, bytes), "b": (bool,), "f": (int, float)}
    fits = kinds.get(spec.dtype.kind, (int,))
    for one in flat:
        if not isinstance(one, fits) or (isinstance(one, bool) and bool not in fits):
            raise InvalidInput("not a value of that output", field=field, expected=spec.datatype, got=repr(one)[:60])
    if given == ():  # one value for all elements, one element along each free axis
        given = tuple([1 if size == -1 else size for size in shape])
        flat = flat * math.prod(given)
    elif len(given) != len(shape) or any(want not in (-1, have) for want, have in zip(shape, given, strict=True)):
        raise InvalidInput("another shape", field=field, expected=f"{list(shape)} a row", got=f"{list(given)}")
    if spec.dtype.kind == "O":
        return bytes_array(flat, given)
    try:
        found = np.asarray(flat, dtype=spec.dtype).reshape(given)
    except (OverflowError, ValueError):
        raise InvalidInput("not in the range of that type", field=field, expected=spec.datatype) from None
    if spec.dtype.kind == "f" and not np.isfinite(found).all():
        raise InvalidInput("not a finite number", field=field, expected=spec.datatype, got=repr(value)[:60])
    return found


def _flatten(value: Any, field: str) -> tuple[list[Any], tuple[int, ...]]:
    """The elements of a nested list in row-major order, and its shape."""
    if not isinstance(value, list | tuple):
        return [value], ()
    parts = [_flatten(one, field) for one in value]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise InvalidInput("lists of different lengths", field=field, got=repr(value)[:60])
    inner = shapes.pop() if shapes else ()
    return [one for flat, _ in parts for one in flat], (len(value), *inner)


def _example(spec: TensorSpec) -> str:
    return {"O": '"unknown"', "b": "false", "f": "0.0"}.get(spec.dtype.kind, "0")
