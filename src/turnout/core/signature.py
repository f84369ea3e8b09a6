"""A signature names what goes into a model and what comes out, and checks that it does."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, InvalidOutput
from turnout.core.tensors import DTYPES, Array, Tensors, dtype_name

#: How the names of inputs begin that are parameters of a whole request, not rows: all optional, never batched.
PARAMETERS = "params."


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One named tensor: data type by its protocol name, shape with -1 where it is free.

    `columns` names the last axis of a tabular input (or the only column, for a tensor of shape [-1]).
    `text` says that the elements of a BYTES tensor are UTF-8 text, not arbitrary bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    text: bool = True
    optional: bool = False

    def __post_init__(self) -> None:
        if self.datatype not in DTYPES:
            raise ValueError(f"{self.name}: unknown data type {self.datatype!r}; one of {', '.join(DTYPES)}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy type of the tensor."""
        return DTYPES[self.datatype]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "datatype": self.datatype,
            "shape": list(self.shape),
            "columns": list(self.columns),
            "text": self.text,
            "optional": self.optional,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> TensorSpec:
        """From the form of `to_json`; name, datatype and shape must be there."""
        return cls(
            found["name"],
            found["datatype"],
            tuple(found["shape"]),
            tuple(found.get("columns", ())),
            found.get("text", True),
            found.get("optional", False),
        )

    def is_given_by(self, names: Container[str]) -> bool:
        """Whether a mapping with these names holds the tensor column by column, and not as a whole.

        A column may be called what its tensor is called: then all columns have to be there.
        """
        if not self.columns or self.columns == (self.name,):
            return False
        return self.name not in names or all(column in names for column in self.columns)

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of that shape fits."""
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a model.

    `batched`: the first axis of every tensor is the row, so requests may be joined. Where False, each
    request runs alone, as it came.
    `lenient`: the names and types were chosen by the format, not declared by the artifact (scikit-learn,
    XGBoost ...); a single input may then come under any name and in any numeric type that fits.
    `source`: where the signature comes from: "artifact", "example" or "user".
    `form`: what the model's own library answers with, for protocols that repeat it: "table" (the outputs are columns
    of a data frame, also where there is one), "names" (arrays by name, also where there is one), "" (one bare array).
    `name`: what an artifact with several signatures calls this one; "" where there is nothing to tell apart.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = True
    lenient: bool = False
    source: str = "artifact"
    form: str = ""
    name: str = ""
    #: The only batch size the model takes, where its first axis is fixed; None where it is free.
    rows_limit: int | None = field(init=False, repr=False, compare=False)
    #: The data types that occur among the outputs.
    output_types: frozenset[str] = field(init=False, repr=False, compare=False)
    _by_name: Mapping[str, TensorSpec] = field(init=False, repr=False, compare=False)
    _only: tuple[str, np.dtype[Any], tuple[int, ...]] | None = field(init=False, repr=False, compare=False)
    _fixed: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0] != -1}
        object.__setattr__(self, "rows_limit", max(sizes) if self.batched and sizes else None)
        object.__setattr__(self, "output_types", frozenset(spec.datatype for spec in self.outputs))
        object.__setattr__(self, "_by_name", {spec.name: spec for spec in self.inputs})
        # What most models are: one input of rows of one fixed shape. `validate` needs one comparison for it.
        only = None
        if self.batched and len(self.inputs) == 1:
            (spec,) = self.inputs
            if spec.shape and spec.shape[0] == -1 and -1 not in spec.shape[1:]:
                only = (spec.name, spec.dtype, spec.shape[1:])
        object.__setattr__(self, "_only", only)
        outputs = self.outputs if self.batched else ()
        plain = bool(outputs) and all(
            spec.shape and -1 not in spec.shape[1:] and spec.datatype != "BYTES" for spec in outputs
        )
        fixed = tuple((spec.name, spec.dtype, spec.shape[1:]) for spec in outputs) if plain else None
        object.__setattr__(self, "_fixed", fixed)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives the same signature back."""
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "batched": self.batched,
            "lenient": self.lenient,
            "source": self.source,
            "form": self.form,
            "name": self.name,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Signature:
        """From the form of `to_json`. Raises ValueError, TypeError or KeyError where it is not that."""
        return cls(
            tuple(TensorSpec.from_json(one) for one in found["inputs"]),
            tuple(TensorSpec.from_json(one) for one in found["outputs"]),
            found.get("batched", True),
            found.get("lenient", False),
            found.get("source", "user"),
            found.get("form", ""),
            found.get("name", ""),
        )

    @property
    def row_bytes(self) -> int:
        """The bytes of one row of all inputs whose other axes are fixed; 0 where an input is BYTES."""
        total = 0
        for spec in self.inputs:
            if spec.datatype == "BYTES":
                return 0
            size = spec.dtype.itemsize
            for dimension in spec.shape[1:]:
                size *= dimension
            total += size
        return total

    def input(self, name: str) -> TensorSpec | None:
        """The input of that name, if there is one."""
        return self._by_name.get(name)

    def fits(self, other: Signature) -> bool:
        """Whether both have the same inputs and outputs, in whatever order."""
        mine, theirs = ({spec.name: spec for spec in (*one.inputs, *one.outputs)} for one in (self, other))
        counts = [(len(one.inputs), len(one.outputs)) for one in (self, other)]
        return mine == theirs and counts[0] == counts[1] and self.batched == other.batched

    def validate(self, inputs: Tensors) -> tuple[Tensors, int]:
        """The inputs under the model's names and types, and the number of rows (1 if not batched).

        Raises InvalidInput naming the tensor, what was expected and what came.
        """
        only = self._only
        if only is not None and len(inputs) == 1 and (array := inputs.get(only[0])) is not None:
            shape = array.shape
            if shape and shape[1:] == only[2] and shape[0] and array.dtype == only[1]:
                return inputs, shape[0]
        if self.lenient and len(self.inputs) == 1 and len(inputs) == 1:
            (array,) = inputs.values()
            inputs = {self.inputs[0].name: array}
        checked: dict[str, Array] = {}
        rows = -1
        for spec in self.inputs:
            given = inputs.get(spec.name)
            if given is None:
                if spec.optional:
                    continue
                raise InvalidInput(
                    f"input {spec.name!r} is missing",
                    field="inputs",
                    expected=f"the inputs {self._names()}",
                    got=", ".join(map(repr, inputs)) or "none",
                )
            array = self._fit(spec, given)
            if self.batched:
                if rows == -1:
                    rows = array.shape[0]
                elif rows != array.shape[0]:
                    raise InvalidInput(
                        "all inputs need the same number of rows",
                        field=f"inputs.{spec.name}",
                        expected=f"{rows} rows",
                        got=f"{array.shape[0]}",
                    )
            checked[spec.name] = array
        if len(checked) != len(inputs):
            unknown = next(name for name in inputs if name not in checked)
            raise InvalidInput(f"there is no input {unknown!r}", field="inputs", expected=f"the inputs {self._names()}")
        if self.batched and rows < 1:  # none at all where every input may be left out, and all of them are
            raise InvalidInput("a request needs at least one row", field="inputs", got=f"{max(rows, 0)} rows")
        return checked, rows if self.batched else 1

    def _names(self) -> str:
        return ", ".join(repr(spec.name) for spec in self.inputs)

    def _fit(self, spec: TensorSpec, array: Array) -> Array:
        if array.dtype != spec.dtype:
            array = self._cast(spec, array)
        shape = array.shape
        wanted = spec.shape
        if len(shape) == len(wanted):
            for want, have in zip(wanted, shape, strict=True):
                if want not in (-1, have):
                    break
            else:
                return array
        if self.batched and wanted[1:] == shape[1:] and wanted[0] > 0:
            return array  # a fixed batch size is the batcher's matter: it pads and splits
        raise InvalidInput(
            "wrong shape",
            field=f"inputs.{spec.name}",
            expected=f"{list(wanted)}{' with columns ' + ', '.join(spec.columns[:8]) if spec.columns else ''}",
            got=f"{list(shape)}",
        )

    def _cast(self, spec: TensorSpec, array: Array) -> Array:
        came = dtype_name(array.dtype)
        if came == spec.datatype:
            return array
        if self.lenient and "BYTES" not in (came, spec.datatype) and np.can_cast(array.dtype, spec.dtype, "same_kind"):
            return array.astype(spec.dtype)
        raise InvalidInput("wrong data type", field=f"inputs.{spec.name}", expected=spec.datatype, got=came)

    def usual_outputs(self, outputs: Tensors, rows: int) -> Tensors | None:
        """The outputs where they are as nearly always: arrays just as declared. None where one has to look."""
        fixed = self._fixed
        if fixed is None or type(outputs) is not dict or len(outputs) != len(fixed):
            return None
        found: dict[str, Array] = {}
        for name, dtype, tail in fixed:
            array = outputs.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.c_contiguous:
                return None
            shape = array.shape
            if not shape or shape[0] != rows or shape[1:] != tail:
                return None
            found[name] = array
        return found

    def check_outputs(self, outputs: Tensors, rows: int) -> None:
        """Raises InvalidOutput where a model's answer is not what the signature says. Extra outputs pass."""
        for spec in self.outputs:
            array = outputs.get(spec.name)
            if array is None:
                raise InvalidOutput(f"the model gave no output {spec.name!r}")
            if self.batched and (array.ndim == 0 or array.shape[0] != rows):
                came = array.shape[0] if array.ndim else "a scalar"
                raise InvalidOutput(f"the model answered {came} rows in {spec.name!r} for {rows}")
            if array.ndim != len(spec.shape) or any(
                want not in (-1, have) for want, have in zip(spec.shape[1:], array.shape[1:], strict=False)
            ):
                raise InvalidOutput(
                    f"the model's output {spec.name!r} has shape {list(array.shape)}, not {list(spec.shape)}"
                )
