"""The models every server of the battery serves: names, data types and shapes. Standard library only.

Each oracle imports this file by its path inside its own environment.
"""

from __future__ import annotations

from typing import NamedTuple

NUMPY_TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}

#: Triton's bound on rows in one request; the other servers have none.
TRITON_MAX_ROWS = 8


class Tensor(NamedTuple):
    """A tensor of a model, with -1 where its shape is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Entry(NamedTuple):
    """One model: what it computes (`kind`), and whether its first axis is the row."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool = True


def _identity(datatype: str) -> Entry:
    return Entry(
        f"identity_{datatype.lower()}",
        "identity",
        (Tensor("INPUT0", datatype, (-1, -1)),),
        (Tensor("OUTPUT0", datatype, (-1, -1)),),
    )


CATALOG = (
    Entry(
        "simple",
        "sum_difference",
        (Tensor("INPUT0", "INT32", (-1, 16)), Tensor("INPUT1", "INT32", (-1, 16))),
        (Tensor("OUTPUT0", "INT32", (-1, 16)), Tensor("OUTPUT1", "INT32", (-1, 16))),
    ),
    *(_identity(datatype) for datatype in NUMPY_TYPES),
    Entry(
        "vector",
        "identity",
        (Tensor("INPUT0", "FP32", (-1,)),),
        (Tensor("OUTPUT0", "FP32", (-1,)),),
        batched=False,
    ),
    Entry(
        "tiny",
        "logistic",
        (Tensor("x", "FP32", (-1, 4)),),
        (Tensor("label", "INT64", (-1,)), Tensor("probabilities", "FP32", (-1, 2))),
    ),
    Entry("linear", "linear", (Tensor("x", "FP64", (-1, 4)),), (Tensor("score", "FP64", (-1,)),)),
    Entry("raises", "raises", (Tensor("x", "FP32", (-1, 1)),), (Tensor("y", "FP32", (-1, 1)),)),
)

BY_NAME = {entry.name: entry for entry in CATALOG}

LOGISTIC_WEIGHTS = (1.0, -2.0, 0.5, 0.25)
LOGISTIC_BIAS = 0.125
LINEAR_WEIGHTS = (1.0, 2.0, 4.0, 8.0)
LINEAR_BIAS = 0.5
LINEAR_COLUMNS = ("a", "b", "c", "d")
