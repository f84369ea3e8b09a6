"""Outputs as JSON values and table rows, and which outputs an answer holds: for the protocols made for people.

Protocols older than named outputs (KServe v1, MLflow) expect what the library's own predict gives. Where a format chose
the output names itself (`Signature.lenient`), that is the first output, and only it is answered there unless the caller
asks for others with `?outputs=label,probabilities`. Models that declare their outputs answer all of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from turnout.core.errors import InvalidInput, InvalidOutput
from turnout.core.messages import InferRequest, InferResponse
from turnout.core.signature import Signature
from turnout.core.tensors import Array
from turnout.protocols.http import HttpRequest
from turnout.protocols.json_arrays import numbers_json


def asked_outputs(http: HttpRequest, signature: Signature, *, first_only: bool = False) -> tuple[str, ...]:
    """The names in `?outputs=a,b`; else the first where `first_only` and the names are ours; else () for all."""
    if http.query:
        asked = [name for text in http.parameters().get("outputs", ()) for name in text.split(",") if name]
        known = [spec.name for spec in signature.outputs]
        for name in asked:
            if name not in known:
                raise InvalidInput(
                    f"there is no output {name!r}", field="?outputs", expected=" or ".join(map(repr, known))
                )
        if asked:
            return tuple(dict.fromkeys(asked))
    if first_only and signature.lenient and len(signature.outputs) > 1:
        return (signature.outputs[0].name,)
    return ()


def answered(request: InferRequest, response: InferResponse) -> dict[str, Array]:
    """The outputs that the answer holds, in the model's order."""
    if not request.outputs:
        return dict(response.outputs)
    return {name: array for name, array in response.outputs.items() if name in request.outputs}


def array_json(array: Array, *, base64_always: bool = False) -> bytes:
    """A tensor as nested JSON; BYTES as strings, or `{"b64": ...}` where they are not text."""
    if array.dtype.kind in "OUS":
        return orjson.dumps(_text(array, base64_always))
    return numbers_json(array)


def array_values(array: Array) -> Any:
    """A tensor as nested Python values: floats in their shortest form, BYTES as in `array_json`."""
    if array.dtype.kind in "OUS":
        return _text(array, always=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return array.tolist()
    return orjson.loads(numbers_json(array))


def _text(array: Array, always: bool) -> Any:
    if array.ndim == 0:
        return _element(array.item(), always=always)
    flat = [_element(value, always=always) for value in array.flat]
    for length in reversed(array.shape[1:]):
        flat = [flat[start : start + length] for start in range(0, len(flat), length)] if length else flat
    return flat


def _element(value: Any, *, always: bool) -> Any:
    data = value if isinstance(value, bytes) else str(value).encode()
    if not always:
        try:
            return data.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(data).decode()}


def row_values(outputs: Mapping[str, Array]) -> list[dict[str, Any]]:
    """One record per row, by output name. Raises InvalidOutput where the outputs differ in rows."""
    lengths = {array.shape[0] if array.ndim else -1 for array in outputs.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise InvalidOutput("the model's outputs do not have the same number of rows, so they cannot be told by row")
    names = list(outputs)
    return [dict(zip(names, row, strict=True)) for row in zip(*map(array_values, outputs.values()), strict=True)]


def value_json(value: Any) -> bytes:
    """Python values as JSON; NaN and the infinities as bare tokens."""
    text = orjson.dumps(value, default=str)
    if b"null" not in text:
        return text
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
