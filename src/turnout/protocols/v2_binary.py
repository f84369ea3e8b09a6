"""The binary tensor extension of the Open Inference Protocol v2: blobs after the JSON, without a copy.

`Inference-Header-Content-Length` says how long the JSON part is; the blobs of the inputs that say
`binary_data_size` follow in the order of `inputs`. A length of 0 means that the whole body is the model's single
input. The same holds for answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import DTYPES, Array, canonical, pack, unpack
from turnout.protocols.json_arrays import DOUBT, small_array
from turnout.protocols.json_values import loads, reshaped, show
from turnout.protocols.v2_json import ABSENT, InputJson, Parsed, RequestJson, decode_header, exact_request

HEADER = "inference-header-content-length"
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)


class Blobs:
    """Hands out the blobs behind the JSON part, one after the other."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def take(self, datatype: str, shape: Sequence[int], size: Any, field: str) -> Array:
        """The next `size` bytes as a tensor: a view on the body. Raises InvalidInput."""
        if type(size) is not int or size < 0:
            raise InvalidInput(
                "not a size in bytes",
                field=f"{field}.parameters.binary_data_size",
                expected="an integer of 0 or more",
                got=show(size),
            )
        left = len(self._view) - self._at
        if size > left:
            raise InvalidInput(
                "the body ends within a tensor",
                field=f"{field}.parameters.binary_data_size",
                expected=f"{size} bytes",
                got=f"{left}",
            )
        start, self._at = self._at, self._at + size
        return _tensor(datatype, shape, self._view[start : self._at], field)

    def finish(self) -> None:
        """Raises InvalidInput where bytes are left that no input asked for."""
        left = len(self._view) - self._at
        if left:
            raise InvalidInput(f"{left} bytes are left after the last tensor", field="body")


def _tensor(datatype: str, shape: Sequence[int], view: memoryview, field: str) -> Array:
    dtype = DTYPES[datatype]
    if dtype.kind != "O":
        expected = math.prod(shape) * dtype.itemsize
        if len(view) != expected:
            raise InvalidInput(
                "the blob does not fit shape and data type",
                field=field,
                expected=f"{expected} bytes for {datatype} {list(shape)}",
                got=f"{len(view)}",
            )
        if dtype.kind == "b" and len(view) and np.frombuffer(view, np.uint8).max() > 1:
            raise InvalidInput("a BOOL byte is neither 0 nor 1", field=field)
        return reshaped(unpack(datatype, (-1,), view), shape, field)
    try:
        elements = unpack(datatype, (math.prod(shape),), view)
    except ValueError as problem:
        raise InvalidInput("malformed BYTES blob", field=field, got=str(problem)) from None
    return reshaped(elements, shape, field)


def split(header: str, body: bytes | bytearray | memoryview) -> tuple[memoryview, memoryview]:
    """The JSON part and the rest of a body. Raises InvalidInput for a length that cannot be."""
    size = int(header) if _DIGITS.fullmatch(header) else -1
    if not 0 <= size <= len(body):
        raise InvalidInput(
            "not a length within the body",
            field="Inference-Header-Content-Length",
            expected=f"0 to {len(body)} bytes",
            got=show(header),
        )
    view = memoryview(body)
    return view[:size], view[size:]


def decode_binary(head: memoryview, rest: memoryview) -> Parsed:
    """Reads a request of a JSON part and blobs. Raises InvalidInput with the path of what is wrong."""
    request = decode_header(head)
    blobs = Blobs(rest)
    parsed = None if request is None else _accept(request, blobs)
    if parsed is None:
        blobs = Blobs(rest)
        parsed = exact_request(loads(head), blobs)
    blobs.finish()
    return parsed


def _accept(request: RequestJson, blobs: Blobs) -> Parsed | None:
    """The arrays where nothing is odd; None where the exact decoder has to look."""
    arrays: dict[str, Array] = {}
    for number, item in enumerate(request.inputs):
        array = _input(item, blobs, number)
        if array is None:
            return None
        arrays[item.name] = array
    if len(arrays) != len(request.inputs):
        return None
    return Parsed(request.id, arrays, request.parameters, request.outputs)


def _input(item: InputJson, blobs: Blobs, number: int) -> Array | None:
    if item.datatype not in DTYPES:
        return None
    parameters = item.parameters
    if not parameters:
        if item.data is ABSENT or item.datatype == "FP16":
            return None
        try:
            return small_array(item.datatype, item.data, item.shape)
        except DOUBT:
            return None
    if len(parameters) != 1 or item.data is not ABSENT or "binary_data_size" not in parameters:
        return None
    return blobs.take(item.datatype, item.shape, parameters["binary_data_size"], f"inputs[{number}]")


def decode_raw(body: memoryview, signature: Signature) -> Parsed:
    """Reads a body that is nothing but the values of the model's single input. Raises InvalidInput."""
    if len(signature.inputs) != 1:
        raise InvalidInput(
            "a raw request needs a model with one input",
            field="Inference-Header-Content-Length",
            got=f"{len(signature.inputs)} inputs",
        )
    spec = signature.inputs[0]
    shape = list(spec.shape)
    if signature.batched and shape.count(-1) > 1:
        shape[0] = 1
    free = shape.count(-1)
    if spec.datatype == "BYTES":
        if math.prod(1 if length == -1 else length for length in shape) != 1:
            raise InvalidInput("a raw request can hold one BYTES element only", field="body")
        element = np.empty(1, dtype=object)
        element[0] = bytes(body)
        return Parsed(None, {spec.name: element.reshape([1] * len(shape))}, None, None)
    if free > 1:
        raise InvalidInput("a raw request leaves only one length open", field="body", got=f"{free} free axes")
    if free:
        shape[shape.index(-1)] = _free_length(spec, shape, len(body))
    return Parsed(None, {spec.name: _tensor(spec.datatype, shape, body, "body")}, None, None)


def _free_length(spec: TensorSpec, shape: list[int], size: int) -> int:
    unit = spec.dtype.itemsize * math.prod(length for length in shape if length != -1)
    if not unit or size % unit:
        raise InvalidInput(
            "not a whole number of rows", field="body", expected=f"a multiple of {unit} bytes", got=f"{size}"
        )
    return size // unit


def blob(array: Array) -> bytes | memoryview:
    """The bytes of an output."""
    return pack(canonical(array))
