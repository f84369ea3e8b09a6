"""How a signature is completed: example rows are made, the model is run once, and its answer is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, canonical, dtype_name, join_rows

Predict = Callable[[Tensors], Tensors]


class Described(Protocol):
    """A model whose signature is still being found."""

    signature: Signature

    def predict(self, inputs: Tensors) -> Tensors: ...


#: What stands for a free dimension other than the rows, when an example is made.
FREE = 8


def example_rows(
    inputs: Sequence[TensorSpec],
    rows: int,
    *,
    values: Mapping[str, Any] | None = None,
    seed: int | None = None,
    free: int = FREE,
) -> dict[str, Array]:
    """Rows that fit the inputs: zeros and empty text, or random ones with a `seed`; `values` gives single values,
    by the name of an input or of a column.

    `free` is the size of free dimensions other than the first. Where the first axis has a fixed size, it keeps it.
    """
    random = None if seed is None else np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for spec in inputs:
        shape = tuple(
            rows if axis == 0 and size == -1 else free if size == -1 else size for axis, size in enumerate(spec.shape)
        )
        value = None if values is None else values.get(spec.name)
        if value is not None:
            made[spec.name] = np.full(shape, value, dtype=spec.dtype)
        elif spec.datatype == "BYTES":
            made[spec.name] = np.full(shape, b"", dtype=object)
        elif random is not None and spec.dtype.kind == "f":
            made[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        elif random is not None:
            made[spec.name] = random.integers(0, 2, shape).astype(spec.dtype)
        else:
            made[spec.name] = np.zeros(shape, dtype=spec.dtype)
        for place, name in enumerate(spec.columns if len(spec.shape) == 2 and values else ()):
            if values is not None and name in values:
                made[spec.name][:, place] = values[name]
    return made


def spec_of(name: str, array: Array, *, batched: bool = True, columns: tuple[str, ...] = ()) -> TensorSpec:
    """The spec of one array; its first axis is free if batched. Raises LoadFailed for types no protocol has."""
    try:
        datatype = dtype_name(array.dtype)
    except TypeError as problem:
        raise LoadFailed(f"{name!r}: {problem}; convert it to a number, a bool or text") from None
    shape = (-1, *array.shape[1:]) if batched and array.ndim else array.shape
    return TensorSpec(name, datatype, tuple(shape), columns)


def specs_of_example(example: Tensors) -> tuple[TensorSpec, ...]:
    """One input for each array of the example. Raises LoadFailed for an empty or a ragged one."""
    if not example:
        raise LoadFailed("the input example is empty")
    arrays = {name: np.asarray(array) for name, array in example.items()}
    rows = {array.shape[0] if array.ndim else -1 for array in arrays.values()}
    if rows == {0}:
        raise LoadFailed("the input example has no rows")
    return tuple(spec_of(name, canonical(a), batched=len(rows) == 1 and -1 not in rows) for name, a in arrays.items())


def outputs_of(
    answer: Tensors, rows: int | None, columns: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[TensorSpec, ...]:
    """The outputs of an answer to `rows` rows (None: not batched). Raises LoadFailed where a row count is off."""
    found = []
    for name, array in answer.items():
        if rows is not None and (array.ndim == 0 or array.shape[0] != rows):
            raise LoadFailed(f"for {rows} rows the model's output {name!r} has shape {list(array.shape)}")
        found.append(spec_of(name, array, batched=rows is not None, columns=(columns or {}).get(name, ())))
    if not found:
        raise LoadFailed("the model gives no output")
    return tuple(found)


def with_outputs(
    signature: Signature,
    predict: Predict,
    *,
    values: Mapping[str, Any] | None = None,
    columns: Mapping[str, tuple[str, ...]] | None = None,
    example: Tensors | None = None,
    rows: int = 2,
) -> Signature:
    """The signature with the outputs that `rows` example rows show, where it has none yet. Raises LoadFailed."""
    if signature.outputs:
        return signature
    rows = signature.rows_limit or rows
    trial = rows_of_example(signature, example, rows) or example_rows(signature.inputs, rows, values=values)
    try:
        answer = predict(trial)
    except LoadFailed:
        raise
    except Exception as problem:
        raise LoadFailed(
            f"the model was tried on an example row and failed ({type(problem).__name__}: {problem}). "
            "Give an input example with rows that it takes"
        ) from problem
    outputs = outputs_of(answer, rows if signature.batched else None, columns)
    if any(-1 in spec.shape[1 if signature.batched else 0 :] for spec in signature.inputs):
        outputs = _freed(outputs, signature, predict, rows)
    return replace(signature, outputs=outputs)


def tried_out(model: Described, example: Tensors | None) -> None:
    """Completes a graph's signature by running it: its outputs, and whether its first axis is the row.

    A graph whose rows influence each other, or do not come back row by row, is not batched. Raises LoadFailed where
    it fails on the example either way.
    """
    signature = model.signature
    if signature.batched and signature.rows_limit is None and not rows_are_independent(signature.inputs, model.predict):
        model.signature = replace(signature, batched=False)
    try:
        model.signature = with_outputs(model.signature, model.predict, example=example)
    except LoadFailed:
        if not model.signature.batched:
            raise
        model.signature = replace(model.signature, batched=False)
        model.signature = with_outputs(model.signature, model.predict, example=example)


def _freed(
    outputs: tuple[TensorSpec, ...], signature: Signature, predict: Predict, rows: int
) -> tuple[TensorSpec, ...]:
    """The outputs with those sizes free that change when the free sizes of the inputs do."""
    try:
        answer = predict(example_rows(signature.inputs, rows if signature.batched else rows + 1, free=2 * FREE))
    except Exception:  # noqa: BLE001  other sizes may be out of the model's domain: what was seen has to do
        return outputs
    freed = []
    for spec in outputs:
        other = answer[spec.name].shape if spec.name in answer else spec.shape
        if len(other) == len(spec.shape):
            sizes = tuple(have if have == new else -1 for have, new in zip(spec.shape, other, strict=True))
            spec = replace(spec, shape=sizes)
        freed.append(spec)
    return tuple(freed)


def rows_of_example(signature: Signature, example: Tensors | None, rows: int) -> dict[str, Array] | None:
    """The example's rows, repeated or cut to `rows`, under the signature's names; None if it does not fit."""
    if example is None or not signature.batched:
        return None
    if len(signature.inputs) == 1 and len(example) == 1:
        example = {signature.inputs[0].name: next(iter(example.values()))}
    made: dict[str, Array] = {}
    for spec in signature.inputs:
        array = np.asarray(example[spec.name]) if spec.name in example else None
        if array is None or array.ndim != len(spec.shape) or not len(array):
            return None
        tiled = canonical(np.concatenate([array] * (rows // len(array) + 1))[:rows])
        made[spec.name] = tiled if spec.dtype.kind == "O" else tiled.astype(spec.dtype, copy=False)
    return made


def rows_are_independent(inputs: Sequence[TensorSpec], predict: Predict) -> bool:
    """Whether two random rows give the same answers alone and together.

    A graph whose first axis is free but is not the row (points of a cloud, samples of a sound) shows itself
    here; joining the requests of two callers in it would mix them. True where the model cannot be tried.
    """
    first, second = (example_rows(inputs, 1, seed=seed) for seed in (1, 2))
    try:
        apart = join_rows([predict(first), predict(second)])
        together = predict(join_rows([first, second]))
        repeated = predict(join_rows([first, second]))
    except Exception:  # noqa: BLE001  random values may be out of the model's domain
        return True
    for name, array in together.items():
        if array.shape != apart[name].shape or array.shape[0] != 2:
            return False
        # Where a second run differs, the model is random, and nothing follows.
        steady = array.dtype.kind == "f" and np.array_equal(array, repeated[name], equal_nan=True)
        if steady and not np.allclose(array, apart[name], rtol=1e-2, atol=1e-4, equal_nan=True):
            return False
    return True
