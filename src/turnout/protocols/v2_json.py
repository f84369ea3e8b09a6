"""The JSON of an Open Inference Protocol v2 infer request: from bytes to named arrays.

Small bodies go through a typed msgspec struct, large ones through simdjson, and whatever either does not simply
accept through the exact decoder, which says what is wrong. Where a key stands twice, the last one counts, in all three.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import simdjson

from turnout.core.errors import InvalidInput, Unsupported
from turnout.core.messages import Parameters
from turnout.core.tensors import DTYPES, Array
from turnout.protocols.json_arrays import DOUBT, LARGE, buffer_array, give_back, small_array, take_parser
from turnout.protocols.json_values import exact_array, expect_list, expect_object, expect_text, loads, show

Scalar = str | int | float | bool
_Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


#: What stands for data that is not there.
ABSENT = msgspec.Raw(b"")


class InputJson(msgspec.Struct, gc=False):
    """One entry of `inputs`. `data` is the raw JSON, still unread, or ABSENT where the values come as a blob."""

    name: str
    shape: list[_Dimension]
    datatype: str
    data: msgspec.Raw = ABSENT
    parameters: dict[str, Scalar] | None = None


class OutputJson(msgspec.Struct, gc=False):
    """One entry of `outputs`: a requested output and how it shall come."""

    name: str
    parameters: dict[str, Scalar] | None = None


class RequestJson(msgspec.Struct, gc=False):
    """An infer request before its data is read. An explicit null counts as absent, as clients write it."""

    inputs: list[InputJson]
    id: str | None = None
    parameters: dict[str, Scalar] | None = None
    outputs: list[OutputJson] | None = None


class Parsed(msgspec.Struct, gc=False):
    """An infer request with its arrays. `arrays` is in the order of `inputs`."""

    id: str | None
    arrays: dict[str, Array]
    parameters: Parameters | None
    outputs: list[OutputJson] | None


#: A short request before its data is read. Raises what DOUBT names.
decode_small = msgspec.json.Decoder(RequestJson).decode


def decode_json(body: bytes | bytearray | memoryview) -> Parsed:
    """Reads a request whose data is all JSON. Raises InvalidInput with the path of what is wrong."""
    try:
        return _small(body) if len(body) < LARGE else _large(bytes(body))
    except DOUBT:
        return exact_request(loads(body))


def decode_header(body: bytes | bytearray | memoryview) -> RequestJson | None:
    """The JSON part of a request with blobs, its data unread; None where the exact decoder has to look."""
    try:
        return decode_small(body)
    except DOUBT:
        return None


def _small(body: bytes | bytearray | memoryview) -> Parsed:
    request = decode_small(body)
    arrays: dict[str, Array] = {}
    for item in request.inputs:
        if item.data is ABSENT or item.parameters or item.datatype == "FP16":
            raise ValueError("for the exact decoder")
        arrays[item.name] = small_array(item.datatype, item.data, item.shape)
    if len(arrays) != len(request.inputs):
        raise ValueError("a name twice")
    return Parsed(request.id, arrays, request.parameters, request.outputs)


def _large(body: bytes) -> Parsed:
    parser = take_parser()
    document = parser.parse(body)
    top = _fields(document, _TOP)
    items = top.pop("inputs")
    arrays: dict[str, Array] = {}
    opened = 1
    item: Any
    fields: Any
    for item in items:
        fields = _fields(item, _ITEM)
        name, datatype, shape = fields["name"], fields["datatype"], fields["shape"].as_list()
        if fields.get("parameters") or datatype == "FP16" or name in arrays or type(name) is not str:
            raise ValueError("for the exact decoder")
        if any(type(length) is not int or length < 0 for length in shape):
            raise ValueError("not a shape")
        arrays[name], inside = buffer_array(datatype, fields["data"], shape)
        opened += 1 + inside
    item = fields = items = None
    if top:
        top = _plain(top)
    del document
    give_back(parser, len(body))
    request = msgspec.convert({"inputs": [], **top}, RequestJson) if top else _BARE
    opened += request.outputs is not None
    if body.count(b"[", 0, body.rfind(b"[") + 1) != opened:  # the rest of a long flat list is skipped at once
        raise ValueError("for the exact decoder")
    return Parsed(request.id, arrays, request.parameters, request.outputs)


_TOP = ("inputs", "id", "parameters", "outputs")
_ITEM = ("name", "shape", "datatype", "data", "parameters")
_BARE = RequestJson([])


def _fields(document: Any, wanted: tuple[str, ...]) -> dict[str, Any]:
    """An object's known fields. A key that stands twice is a matter for the exact decoder."""
    keys = list(document.keys())
    if len(set(keys)) != len(keys):
        raise ValueError("a key twice")
    return {key: document[key] for key in keys if key in wanted}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as ordinary Python, so that nothing of the document stays alive."""
    for key, value in fields.items():
        if isinstance(value, simdjson.Array):
            fields[key] = value.as_list()
        elif isinstance(value, simdjson.Object):
            fields[key] = value.as_dict()
    return fields


def exact_request(document: Any, blobs: Any = None) -> Parsed:
    """Reads a request from Python values, with every check. Raises InvalidInput with the path.

    `blobs` (`v2_binary.Blobs`) gives the arrays of inputs that say `binary_data_size`; None where there are none.
    """
    top = expect_object(document, "body")
    if "inputs" not in top:
        raise InvalidInput("missing", field="inputs", expected="a list of tensors", got=show(top))
    arrays: dict[str, Array] = {}
    for number, value in enumerate(expect_list(top["inputs"], "inputs")):
        field = f"inputs[{number}]"
        item = expect_object(value, field)
        name = expect_text(_required(item, "name", field), f"{field}.name")
        if name in arrays:
            raise InvalidInput(f"input {name!r} is given twice", field=field)
        arrays[name] = _exact_input(item, field, blobs)
    outputs = None
    if top.get("outputs") is not None:
        outputs = [_exact_output(v, n) for n, v in enumerate(expect_list(top["outputs"], "outputs"))]
    identity = top.get("id")
    if identity is not None:
        identity = expect_text(identity, "id")
    return Parsed(identity, arrays, exact_parameters(top.get("parameters"), "parameters"), outputs)


def _exact_input(item: dict[str, Any], field: str, blobs: Any) -> Array:
    datatype = expect_text(_required(item, "datatype", field), f"{field}.datatype")
    check_datatype(datatype, f"{field}.datatype")
    shape = exact_shape(_required(item, "shape", field), f"{field}.shape")
    parameters = exact_parameters(item.get("parameters"), f"{field}.parameters") or {}
    check_input_parameters(parameters, f"{field}.parameters")
    data = item.get("data")
    size = parameters.get("binary_data_size")
    if size is not None:
        if data is not None:
            raise InvalidInput("has both data and binary_data_size", field=field, expected="one of them")
        if blobs is None:
            raise InvalidInput(
                "binary data needs to be announced",
                field=f"{field}.parameters.binary_data_size",
                expected="the header Inference-Header-Content-Length with the length of the JSON part",
            )
        array: Array = blobs.take(datatype, shape, size, field)
        return array
    if data is None:
        raise InvalidInput("has no data", field=field, expected="data, or binary_data_size and a blob")
    if datatype == "FP16":
        raise InvalidInput("FP16 has no JSON form", field=f"{field}.data", expected="binary tensor data")
    return exact_array(datatype, data, f"{field}.data", shape)


def _required(item: dict[str, Any], key: str, field: str) -> Any:
    if item.get(key) is None:
        raise InvalidInput("missing", field=f"{field}.{key}", got=show(item))
    return item[key]


def check_datatype(datatype: str, field: str) -> None:
    """Raises InvalidInput for a data type that the protocol or this server does not have."""
    if datatype not in DTYPES:
        raise InvalidInput("unknown data type", field=field, expected=", ".join(DTYPES), got=show(datatype))


def exact_shape(value: Any, field: str) -> list[int]:
    """A shape from Python values. Raises InvalidInput."""
    shape = expect_list(value, field)
    for number, length in enumerate(shape):
        if type(length) is not int or not 0 <= length <= 2**62:
            raise InvalidInput(
                "not a length", field=f"{field}[{number}]", expected="an integer of 0 or more", got=show(length)
            )
    return shape


def exact_parameters(value: Any, field: str) -> dict[str, Scalar] | None:
    """Parameters from Python values: scalars only. Raises InvalidInput."""
    if value is None:
        return None
    found = expect_object(value, field)
    for key, scalar in found.items():
        expect_text(key, field)
        if not isinstance(scalar, str | int | float):
            raise InvalidInput(
                "must be a single value",
                field=f"{field}.{key!r}",
                expected="a string, a number or a boolean",
                got=show(scalar),
            )
        if isinstance(scalar, str):
            expect_text(scalar, f"{field}.{key!r}")
    return found


def check_input_parameters(parameters: Parameters, field: str) -> None:
    """Raises Unsupported for parameters that ask for what this server does not do."""
    for key in parameters:
        if key.startswith("shared_memory_"):
            raise Unsupported(
                f"{field}.{key}: tensors in shared memory are not offered over HTTP; send data in the body"
            )


def _exact_output(value: Any, number: int) -> OutputJson:
    field = f"outputs[{number}]"
    item = expect_object(value, field)
    name = expect_text(_required(item, "name", field), f"{field}.name")
    return OutputJson(name, exact_parameters(item.get("parameters"), f"{field}.parameters"))
