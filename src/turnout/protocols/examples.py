"""Requests that work, written from a model's signature: for error texts, the OpenAPI document and the docs page."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

from turnout.core.signature import Signature, TensorSpec

#: Elements of a tensor that are still written out in an error text.
SHORT = 32


def value(datatype: str) -> Any:
    """A plausible element of a data type, as JSON has it."""
    if datatype == "BYTES":
        return "text"
    if datatype == "BOOL":
        return True
    return 0.5 if datatype.startswith("FP") else 1


def example_shape(spec: TensorSpec) -> list[int]:
    """The spec's shape with every free axis of length 1."""
    return [1 if length == -1 else length for length in spec.shape]


def nested(spec: TensorSpec) -> Any:
    """A tensor as nested lists, one row where the first axis is free."""
    return _nested(spec.datatype, example_shape(spec))


def _nested(datatype: str, shape: list[int]) -> Any:
    if not shape:
        return value(datatype)
    return [_nested(datatype, shape[1:]) for _ in range(shape[0])]


def flat(spec: TensorSpec) -> list[Any]:
    """A tensor as a flat list."""
    return [value(spec.datatype)] * math.prod(example_shape(spec))


def v2(signature: Signature) -> dict[str, Any]:
    """An Open Inference Protocol v2 infer request."""
    return {
        "inputs": [
            {"name": spec.name, "shape": example_shape(spec), "datatype": spec.datatype, "data": flat(spec)}
            for spec in signature.inputs
            if not spec.optional
        ]
    }


def _row(signature: Signature, spec: TensorSpec) -> Any:
    """What stands for one row of a tensor."""
    return nested(spec)[0] if signature.batched and spec.shape else nested(spec)


def v1(signature: Signature) -> dict[str, Any]:
    """A KServe v1 predict request, in row form where the model takes rows."""
    specs = [spec for spec in signature.inputs if not spec.optional]
    if not signature.batched:
        return {"inputs": nested(specs[0]) if len(specs) == 1 else {spec.name: nested(spec) for spec in specs}}
    if len(specs) == 1:
        return {"instances": [_row(signature, specs[0])]}
    return {"instances": [{spec.name: _row(signature, spec) for spec in specs}]}


def record(signature: Signature) -> dict[str, Any] | None:
    """One row by column name; None where the model has no columns."""
    found: dict[str, Any] = {}
    for spec in signature.inputs:
        if spec.columns and len(spec.shape) <= 2:
            found.update({column: value(spec.datatype) for column in spec.columns})
        elif len(spec.shape) == 1 or (len(spec.shape) == 2 and spec.shape[1] == 1):
            found[spec.name] = value(spec.datatype)
        else:
            return None
    return found if signature.batched else None


def mlflow(signature: Signature) -> dict[str, Any]:
    """An MLflow scoring request."""
    row = record(signature)
    if row is not None and any(spec.columns for spec in signature.inputs):
        return {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}
    specs = signature.inputs
    return {"inputs": nested(specs[0]) if len(specs) == 1 else {spec.name: nested(spec) for spec in specs}}


def plain(signature: Signature) -> Any:
    """A request in the plain form: rows as a bare list, or records."""
    row = record(signature)
    if row is not None and (len(signature.inputs) > 1 or signature.inputs[0].columns):
        return [row]
    if len(signature.inputs) == 1:
        return nested(signature.inputs[0])
    return {spec.name: nested(spec) for spec in signature.inputs}


def csv(signature: Signature) -> str | None:
    """A header and a row; None where the model has no columns."""
    row = record(signature)
    if row is None:
        return None
    return (
        ",".join(row) + "\n" + ",".join(str(v).lower() if isinstance(v, bool) else str(v) for v in row.values()) + "\n"
    )


_FORMS = {"v2": v2, "v1": v1, "mlflow": mlflow, "plain": plain}


@lru_cache(maxsize=1024)
def text(signature: Signature, form: str) -> str:
    """A short request that works, as JSON; for large tensors a pointer to the whole one."""
    if max((math.prod(example_shape(spec)) for spec in signature.inputs), default=0) > SHORT:
        return "see the model's example request at /docs or in /openapi.json"
    return json.dumps(_FORMS[form](signature))
