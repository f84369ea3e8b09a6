"""ModelInfer over gRPC: one message becomes an InferRequest, one InferResponse becomes a message.

What stays the same from request to request (names, types, shapes, parameters) is parsed once and
remembered by its bytes, as is the head of an answer; ids and tensor values never are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnout.core.errors import InvalidInput, InvalidOutput, VersionNotFound
from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel, Serving
from turnout.core.signature import Signature
from turnout.core.tensors import Array, canonical, dtype_name, pack
from turnout.protocols.grpc_messages import parse
from turnout.protocols.provenance import read_explain
from turnout.protocols.v2_grpc_contents import from_raw, from_typed
from turnout.protocols.v2_grpc_example import example_request
from turnout.protocols.v2_grpc_head import Head, ModelInferRequest, read_head
from turnout.protocols.v2_grpc_parameters import answer_parameters_field
from turnout.protocols.v2_grpc_wire import Split, field, raw_output, split, text, varint

_MAX_REMEMBERED = 256
_MAX_HEAD_BYTES = 2048
JOIN_BELOW = 16384  # bytes: below, one more copy costs less than one more buffer to write

Parts = list[bytes | memoryview]


class ModelInferCodec:
    """Decodes ModelInferRequest, encodes ModelInferResponse, always with raw_output_contents."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self._model_fields: dict[tuple[str, str], bytes] = {}
        self._output_fields: dict[tuple[str, np.dtype[Any], tuple[int, ...]], bytes] = {}

    def decode(
        self, message: bytes | memoryview, serving: Serving, context: Context
    ) -> tuple[ServedModel, InferRequest]:
        """The model that the message names, and the request. Large tensors are views into the message.

        Raises ModelNotFound, InvalidInput with the field's path in the message, and Unsupported.
        """
        pieces = split(message)
        if pieces is None:
            message, pieces = _in_usual_order(message)
        head = self._heads.get(pieces.head)
        if head is None:
            head = read_head(pieces.head)
        served = find(serving, head.model, head.version, "model_")
        journey = context.journey
        if journey is not None:
            if head.version:  # named by the caller, who then says nothing about how others are guided
                journey.direct = True
                journey.variant = served.version
            if head.parameters:
                read_explain(head.parameters, journey)
        signature = served.signature
        try:
            inputs = _raw_inputs(head, message, pieces.raws) if pieces.raws else _typed_inputs(head)
            checked, rows = signature.validate(inputs)
            if head.outputs:
                _check_requested(head.outputs, signature)
        except InvalidInput as problem:
            raise _placed(problem, head, served) from None
        if not head.typed and pieces.head not in self._heads and len(pieces.head) <= _MAX_HEAD_BYTES:
            if len(self._heads) >= _MAX_REMEMBERED:
                self._heads.clear()
            self._heads[pieces.head] = head
        if pieces.id:  # it stands in for an id that the door may have made; only the caller's own id is echoed
            context = Context(pieces.id, *context[1:])
        return served, InferRequest(
            served.name, checked, rows, context, served.version, head.outputs, head.parameters, pieces.id
        )

    def remembered(self, serialized: bytes) -> Head | None:
        """The head in these bytes, if a request with it was in order and another may come."""
        return self._heads.get(serialized)

    def encode(self, request: InferRequest, response: InferResponse) -> bytes | Parts:
        """The serialized ModelInferResponse; in parts where a tensor is large, which then is not copied."""
        head: Parts = [self.model_field(response.model, response.version)]
        if request.reply:
            head.append(text(3, str(request.reply)))
        if said := answer_parameters_field(response.parameters, request.context.journey):
            head.append(said)
        raws: Parts = []
        large = False
        for name in request.outputs or response.outputs:
            array = response.outputs.get(name)
            if array is None:
                raise InvalidOutput(f"the model gave no output {name!r}")
            array = canonical(array)
            head.append(self.output_field(name, array))
            data = pack(array)
            raws.append(raw_output(len(data)))
            raws.append(data)
            large = large or len(data) >= JOIN_BELOW
        return _gathered(head + raws) if large else b"".join(head + raws)

    def model_field(self, model: str, version: str) -> bytes:
        """What an answer says first: the names of model and version."""
        known = self._model_fields.get((model, version))
        if known is None:
            if len(self._model_fields) >= _MAX_REMEMBERED:
                self._model_fields.clear()
            known = self._model_fields[model, version] = text(1, model) + text(2, version)
        return known

    def output_field(self, name: str, array: Array) -> bytes:
        """What an answer says of an output besides its elements: name, type and shape."""
        key = (name, array.dtype, array.shape)
        known = self._output_fields.get(key)
        if known is None:
            if len(self._output_fields) >= _MAX_REMEMBERED:
                self._output_fields.clear()
            known = self._output_fields[key] = _output_tensor(name, array)
        return known


def find(serving: Serving, name: str, version: str, prefix: str = "") -> ServedModel:
    """The model a message names; `prefix` leads the names of the message's two fields.

    Raises ModelNotFound, and InvalidInput for a version that is neither served nor a number.
    """
    if not name:
        raise InvalidInput("the message names no model", field=f"{prefix}name")
    try:
        return serving.find(name, version)
    except VersionNotFound:
        if version.isascii() and version.isdigit():
            raise
        raise InvalidInput(
            "no such version", field=f"{prefix}version", expected="a whole number", got=repr(version)
        ) from None


def _in_usual_order(message: bytes | memoryview) -> tuple[bytes, Split]:
    """A message that was not written as all writers do, read by protobuf and written again. Raises InvalidInput."""
    parsed = parse(ModelInferRequest, message)
    parsed.DiscardUnknownFields()
    usual: bytes = parsed.SerializeToString()
    pieces = split(usual)
    if pieces is None:
        raise InvalidInput("the message could not be read", expected="a serialized inference.ModelInferRequest")
    return usual, pieces


def _raw_inputs(head: Head, message: bytes | memoryview, raws: list[tuple[int, int]]) -> dict[str, Array]:
    if head.typed:
        raise InvalidInput(
            "contents together with raw_input_contents", field="inputs", expected="one of the two for all inputs"
        )
    if len(raws) != len(head.tensors):
        raise InvalidInput(
            "one entry for each input", field="raw_input_contents", expected=str(len(head.tensors)), got=str(len(raws))
        )
    inputs: dict[str, Array] = {}
    for index, (start, stop) in enumerate(raws):
        tensor = head.tensors[index]
        inputs[tensor.name] = from_raw(index, tensor, message, start, stop)
    return inputs


def _typed_inputs(head: Head) -> dict[str, Array]:
    return {
        tensor.name: from_typed(f"inputs[{index}]", tensor, contents)
        for index, (tensor, contents) in enumerate(zip(head.tensors, head.contents, strict=True))
    }


def _check_requested(outputs: tuple[str, ...], signature: Signature) -> None:
    known = {spec.name for spec in signature.outputs}
    if not known or known.issuperset(outputs):
        return
    for index, name in enumerate(outputs):
        if name not in known:
            raise InvalidInput(
                f"there is no output {name!r}",
                field=f"outputs[{index}].name",
                expected=f"one of {', '.join(repr(spec.name) for spec in signature.outputs)}",
            )


def _placed(problem: InvalidInput, head: Head, served: ServedModel) -> InvalidInput:
    """The problem with the path in the caller's own message, and with a request that works."""
    path = problem.field
    if path.startswith("inputs."):
        names = [tensor.name for tensor in head.tensors]
        name = path.removeprefix("inputs.")
        if name in names or len(names) == 1:
            path = f"inputs[{names.index(name) if name in names else 0}]"
    return InvalidInput(
        problem.reason, field=path, expected=problem.expected, got=problem.got, example=example_request(served)
    )


def _output_tensor(name: str, array: Array) -> bytes:
    """The `outputs` entry of a tensor: what it is, not what it holds."""
    try:
        datatype = dtype_name(array.dtype)
    except TypeError:
        raise InvalidOutput(f"the model's output {name!r} has a type that the protocol does not know") from None
    shape = b"".join(map(varint, array.shape))
    return field(5, text(1, name) + text(2, datatype) + (field(3, shape) if shape else b""))


def _gathered(parts: Parts) -> Parts:
    """The same bytes in as few parts as they can be without copying a large one."""
    gathered: Parts = []
    small: Parts = []
    for part in parts:
        if len(part) < JOIN_BELOW:
            small.append(part)
            continue
        if small:
            gathered.append(b"".join(small))
            small = []
        gathered.append(part)
    if small:
        gathered.append(b"".join(small))
    return gathered
