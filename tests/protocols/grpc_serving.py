"""A small serving with models of every data type, for the tests of the gRPC codecs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from turnout.core.errors import ModelNotFound, VersionNotFound
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.servable import Servable, ServedModel, State
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array


class Echo:
    """Answers every input under its own name."""

    async def infer(self, request: InferRequest) -> InferResponse:
        return InferResponse(request.inputs, request.model, "1")


@dataclass
class Served:
    name: str
    signature: Signature
    version: str = "1"
    format: str = "onnx"
    state: State = State.READY
    reason: str = ""
    servable: Servable = field(default_factory=Echo)


class Fixed:
    """Serves exactly the models it is given; `ready` is whether all of them are."""

    def __init__(self, *models: ServedModel) -> None:
        self._models = models

    @property
    def ready(self) -> bool:
        return all(model.state is State.READY for model in self._models)

    def models(self) -> Sequence[ServedModel]:
        return self._models

    def find(self, name: str, version: str = "") -> ServedModel:
        found = [model for model in self._models if model.name == name]
        if not found:
            raise ModelNotFound(f"no model {name!r} is served here")
        for model in found:
            if version in ("", model.version):
                return model
        raise VersionNotFound(f"model {name!r} has no version {version!r}")


def one_tensor(name: str, datatype: str, rank: int) -> Served:
    spec = TensorSpec("x", datatype, (-1,) * rank)
    return Served(name, Signature((spec,), (spec,), batched=False))


IRIS = Served(
    "iris",
    Signature(
        (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("label", "INT64", (-1,)), TensorSpec("p", "FP32", (-1, 3)))
    ),
)
TWO = Served(
    "two",
    Signature(
        (TensorSpec("a", "INT32", (-1, 2)), TensorSpec("b", "BYTES", (-1,))),
        (TensorSpec("a", "INT32", (-1, 2)), TensorSpec("b", "BYTES", (-1,))),
    ),
    version="3",
)
#: One model for every data type and rank, by the name `any-FP32-2`.
ANY = tuple(one_tensor(f"any-{datatype}-{rank}", datatype, rank) for datatype in DTYPES for rank in range(4))
SERVING = Fixed(IRIS, TWO, *ANY)


def elements(datatype: str) -> st.SearchStrategy[object]:
    """Single elements of a data type, as numpy takes them."""
    if datatype == "BYTES":
        return st.binary(max_size=6)
    return hnp.from_dtype(DTYPES[datatype])


@st.composite
def arrays(draw: st.DrawFn, datatypes: Sequence[str] = tuple(DTYPES), min_rank: int = 0) -> tuple[str, Array]:
    """A data type and an array of it, of rank 0 to 3, some without elements."""
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(hnp.array_shapes(min_dims=min_rank, max_dims=3, min_side=0, max_side=4))
    if datatype == "BYTES":
        count = int(np.prod(shape, dtype=int))
        array = np.empty(count, dtype=object)
        array[:] = draw(st.lists(st.binary(max_size=6), min_size=count, max_size=count))
        return datatype, array.reshape(shape)
    return datatype, draw(hnp.arrays(DTYPES[datatype], shape))


def same(left: Array, right: Array) -> bool:
    """Equal in type, shape and every byte (so NaN equals itself)."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind == "O":
        return bool(left.tolist() == right.tolist())
    return left.tobytes() == right.tobytes()
