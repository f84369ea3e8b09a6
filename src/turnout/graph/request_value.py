"""Where a value of a request is found: in a header, a cookie, an argument of its URL, or a column of its inputs.

Whatever it is made of, it is compared and hashed as text: 7, 7.0 and "7" are the same value, true is "true".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.messages import InferRequest
from turnout.core.signature import Signature
from turnout.core.tensors import Array, Tensors

#: What a value of a request is read from, as a spec names it.
KINDS = ("header", "cookie", "query", "column")

#: The value of one request, None where it has none. An empty one is none.
Read = Callable[[InferRequest], str | None]


def read(kind: str, name: str, signature: Signature | None = None) -> Read:
    """How to find a value of that kind and name. Raises InvalidInput for a column that the signature has not."""
    if kind == "header":
        name = name.lower()

        def header(request: InferRequest) -> str | None:
            attributes = request.context.attributes
            return (attributes.header(name) or None) if attributes is not None else None

        return header
    if kind == "cookie":

        def cookie(request: InferRequest) -> str | None:
            attributes = request.context.attributes
            return (attributes.cookie(name) or None) if attributes is not None else None

        return cookie
    if kind == "query":

        def query(request: InferRequest) -> str | None:
            attributes = request.context.attributes
            return (attributes.argument(name) or None) if attributes is not None else None

        return query
    return Column(name, signature).first


class Column:
    """One column of the inputs: a tensor of its own, or a named part of a table.

    Without a signature only a tensor of that name is found. Of a tensor with several values a row, the first counts.
    """

    __slots__ = ("_at", "_tensor", "name")

    def __init__(self, name: str, signature: Signature | None = None) -> None:
        self.name = name
        self._tensor, self._at = _locate(name, signature)

    def first(self, request: InferRequest) -> str | None:
        """The value in the first row, which stands for the whole request."""
        array = self._find(request.inputs)
        if array is None or not array.size:
            return None
        row = array[0] if array.ndim else array
        return as_text(row if np.ndim(row) == 0 else row.flat[self._at if self._at < row.size else 0])

    def each(self, inputs: Tensors, rows: int) -> Sequence[str | None]:
        """The value in each row; Nones where there is no such column."""
        array = self._find(inputs)
        if array is None or not array.ndim or len(array) < rows or not array.size:
            return [None] * rows
        flat = array.reshape(len(array), -1)
        return [as_text(value) for value in flat[:rows, self._at if self._at < flat.shape[1] else 0]]

    def _find(self, inputs: Tensors) -> Array | None:
        array = inputs.get(self._tensor)
        return array if array is not None else inputs.get(self.name)


def _locate(name: str, signature: Signature | None) -> tuple[str, int]:
    if signature is None or signature.input(name) is not None:
        return name, 0
    for spec in signature.inputs:
        if name in spec.columns:
            return spec.name, spec.columns.index(name)
    known = [
        *(spec.name for spec in signature.inputs),
        *(column for spec in signature.inputs for column in spec.columns),
    ]
    raise InvalidInput(f"there is no input column {name!r}", expected=", ".join(known[:20]), got=repr(name))


def as_text(value: Any) -> str | None:
    """A value of a tensor or a spec as the text that it is compared by; None for NaN and for nothing."""
    if isinstance(value, bytes):
        return value.decode(errors="replace") or None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return None if np.isnan(value) else str(value)
        return str(int(value)) if value == int(value) else str(value)
    return str(value) or None
