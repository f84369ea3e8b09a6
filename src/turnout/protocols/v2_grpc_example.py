"""A ModelInferRequest that works, in protobuf's text form, for the failures that name one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from turnout.core.servable import ServedModel
from turnout.core.signature import TensorSpec
from turnout.protocols.v2_grpc_contents import LISTS

_MAX_ELEMENTS = 16
_SAMPLES: Mapping[str, str] = {"BOOL": "true", "BYTES": '"text"', "FP32": "0.5", "FP64": "0.5"}


def example_request(served: ServedModel) -> str:
    """One row for this model. Inputs of more than a few elements are given by their size instead."""
    inputs = [spec for spec in served.signature.inputs if not spec.optional]
    shapes = [tuple(1 if length < 0 else length for length in spec.shape) for spec in inputs]
    typed = all(
        spec.datatype in LISTS and math.prod(shape) <= _MAX_ELEMENTS for spec, shape in zip(inputs, shapes, strict=True)
    )
    parts = [f"model_name: {_quoted(served.name)}"]
    sizes = []
    for spec, shape in zip(inputs, shapes, strict=True):
        contents = f" contents {{ {_elements(spec, math.prod(shape))} }}" if typed else ""
        parts.append(
            f'inputs {{ name: {_quoted(spec.name)} datatype: "{spec.datatype}" shape: {list(shape)}{contents} }}'
        )
        sizes.append(_raw_size(spec, math.prod(shape)))
    text = " ".join(parts)
    return text if typed else f"{text} with raw_input_contents of {', '.join(sizes)} bytes"


def _elements(spec: TensorSpec, count: int) -> str:
    sample = _SAMPLES.get(spec.datatype, "1")
    return f"{LISTS[spec.datatype]}: [{', '.join([sample] * count)}]"


def _raw_size(spec: TensorSpec, count: int) -> str:
    return f"{count} x (4 + length)" if spec.datatype == "BYTES" else str(count * spec.dtype.itemsize)


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
