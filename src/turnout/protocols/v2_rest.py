"""Open Inference Protocol v2 over REST: `/v2/...`, JSON and the binary tensor extension."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import orjson

from turnout.core.errors import Failure, InvalidInput, Unsupported
from turnout.core.messages import NO_PARAMETERS, Context, InferRequest, InferResponse, Journey, Parameters
from turnout.core.servable import ServedModel
from turnout.core.signature import Signature
from turnout.core.tensors import Array, dtype_name
from turnout.protocols import examples, v2_metadata
from turnout.protocols.failures import error_body
from turnout.protocols.http import JSON, HttpRequest, HttpResponse, Route
from turnout.protocols.json_arrays import DOUBT, LARGE, flat_json, small_array
from turnout.protocols.provenance import parameters_json, read_explain
from turnout.protocols.v2_binary import HEADER, blob, decode_binary, decode_raw, split
from turnout.protocols.v2_json import ABSENT, OutputJson, Parsed, decode_json, decode_small

OCTETS = "application/octet-stream"


class Reply(msgspec.Struct, frozen=True, gc=False):
    """How the caller wants the answer: its id, and which outputs as blobs (others by `binary`)."""

    id: str | None = None
    binary: bool = False
    chosen: dict[str, bool] | None = None


PLAIN_REPLY = Reply()


class V2Infer:
    """Decodes and encodes `.../infer`."""

    name = "v2"

    def decode(self, http: HttpRequest, model: ServedModel, context: Context) -> InferRequest:
        """The request. Raises InvalidInput with the path of what is wrong, or Unsupported."""
        signature = model.signature
        header = http.headers.get(HEADER)
        if header is None and len(http.body) < LARGE:
            usual = _decode_usual(http.body, model, context)
            if usual is not None:
                return usual
        try:
            if header is None:
                parsed, reply = decode_json(http.body), PLAIN_REPLY
            else:
                head, rest = split(header, http.body)
                if head:
                    parsed, reply = decode_binary(head, rest), PLAIN_REPLY
                else:
                    parsed, reply = decode_raw(rest, signature), Reply(None, binary=True)
            outputs: tuple[str, ...] = ()
            parameters: Parameters = NO_PARAMETERS
            if parsed.outputs is not None or parsed.parameters is not None:
                outputs, parameters, reply = _wishes(parsed, signature, reply)
                read_explain(parameters, context.journey)
            if parsed.id:
                reply = Reply(parsed.id, reply.binary, reply.chosen)
                context = Context(parsed.id, *context[1:])
            inputs, rows = signature.validate(parsed.arrays)
            for spec in signature.outputs:
                if spec.datatype == "FP16":
                    _check_half(spec.name, outputs, reply)
        except InvalidInput as problem:
            raise _placed(problem, http, signature) from None
        return InferRequest(model.name, inputs, rows, context, model.version, outputs, parameters, reply)

    def encode(self, http: HttpRequest, request: InferRequest, response: InferResponse) -> HttpResponse:
        """The answer: JSON, or JSON and blobs as soon as one output shall be a blob."""
        reply = request.reply if type(request.reply) is Reply else PLAIN_REPLY
        if not reply.binary and reply.chosen is None and not request.outputs:
            usual = _encode_usual(reply.id, response, request.context.journey)
            if usual is not None:
                return HttpResponse(200, JSON, usual)
        parts = [_prefix(response.model, response.version)]
        if reply.id is not None:
            parts.append(b'"id":' + _text(reply.id) + b",")
        if said := parameters_json(response.parameters, request.context.journey):
            parts.append(b'"parameters":' + said + b",")
        parts.append(b'"outputs":[')
        blobs: list[bytes | memoryview] = []
        comma = b""
        for name, array in response.outputs.items():
            if request.outputs and name not in request.outputs:
                continue
            binary = reply.binary if reply.chosen is None else reply.chosen.get(name, reply.binary)
            head = _tensor_head(name, dtype_name(array.dtype), array.shape)
            parts.append(comma + (head.removesuffix(_DATA) if binary else head))
            if binary:
                piece = blob(array)
                blobs.append(piece)
                parts.append(b'"parameters":{"binary_data_size":%d}}' % len(piece))
            else:
                parts.append(_data(name, array) + b"}")
            comma = b","
        parts.append(b"]}")
        whole = b"".join(parts)
        if not blobs:
            return HttpResponse(200, JSON, whole)
        return HttpResponse(200, OCTETS, [whole, *blobs], (("Inference-Header-Content-Length", str(len(whole))),))

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)


def _decode_usual(body: bytes | bytearray | memoryview, model: ServedModel, context: Context) -> InferRequest | None:
    """The request of most callers: short, JSON, one input, no wishes. None for any other, and for a wrong one."""
    signature = model.signature
    try:
        parsed = decode_small(body)
        (item,) = parsed.inputs
        if parsed.outputs is not None or parsed.parameters is not None or item.parameters or item.data is ABSENT:
            return None
        if item.datatype == "FP16" or "FP16" in signature.output_types:
            return None
        inputs, rows = signature.validate({item.name: small_array(item.datatype, item.data, item.shape)})
    except (*DOUBT, InvalidInput):
        return None  # whoever reads it again says what is wrong
    reply = PLAIN_REPLY
    if parsed.id:
        reply = Reply(parsed.id)
        context = Context(parsed.id, *context[1:])
    return InferRequest(model.name, inputs, rows, context, model.version, (), NO_PARAMETERS, reply)


def _encode_usual(id: str | None, response: InferResponse, journey: Journey | None) -> bytes | None:
    """The answer that most callers get: all outputs, numbers, as JSON. None where an output is something else."""
    parts = [_prefix(response.model, response.version)]
    if said := parameters_json(response.parameters, journey):
        parts.append(b'"parameters":%b,' % said)
    if id is not None:
        parts.append(b'"id":%b,"outputs":[' % orjson.dumps(id))
    else:
        parts.append(b'"outputs":[')
    for name, array in response.outputs.items():
        dtype = array.dtype
        if dtype.char not in "fdilq" or not array.flags.c_contiguous or not array.ndim:
            return None
        data = orjson.dumps(array if array.ndim == 1 else array.ravel(), option=orjson.OPT_SERIALIZE_NUMPY)
        if b"null" in data:
            return None
        parts.append(_tensor_head(name, dtype_name(dtype), array.shape))
        parts.append(data)
        parts.append(b"},")
    parts[-1] = b"}]}"
    return b"".join(parts)


def usual_start(model: str, version: str, said: bytes) -> bytes:
    """The start of an answer up to its prediction id, given that of its parameters (`provenance.usual_parameters`)."""
    return _prefix(model, version) + b'"parameters":' + said


def usual_tensor(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    """The start of an output up to its data."""
    return _tensor_head(name, datatype, shape)


def _wishes(parsed: Parsed, signature: Signature, reply: Reply) -> tuple[tuple[str, ...], Parameters, Reply]:
    """What `outputs` and `parameters` ask for: names, parameters for the model, and the form of the answer."""
    parameters = dict(parsed.parameters or {})
    binary = _flag(parameters.pop("binary_data_output", reply.binary), "parameters.binary_data_output")
    for key, value in parameters.items():
        _check_reserved(key, value)
    if not parsed.outputs:  # an empty list asks for all, as no list does
        return (), parameters or NO_PARAMETERS, Reply(reply.id, binary)
    known = [spec.name for spec in signature.outputs]
    chosen: dict[str, bool] = {}
    for number, output in enumerate(parsed.outputs):
        if output.name not in known:
            raise InvalidInput(
                f"there is no output {output.name!r}",
                field=f"outputs[{number}].name",
                expected=" or ".join(map(repr, known)),
            )
        chosen[output.name] = _output_form(output, number, binary)
    return tuple(chosen), parameters or NO_PARAMETERS, Reply(reply.id, binary, chosen)


def _output_form(output: OutputJson, number: int, binary: bool) -> bool:
    """Whether an output shall come as a blob."""
    for key, value in (output.parameters or {}).items():
        field = f"outputs[{number}].parameters.{key}"
        if key == "binary_data":
            binary = _flag(value, field)
        elif key == "classification" and value not in (0, False):
            raise Unsupported(f"{field}: the classification extension is not offered here; ask for the output itself")
        elif key.startswith("shared_memory_"):
            raise Unsupported(f"{field}: outputs in shared memory are not offered over HTTP; ask for binary_data")
    return binary


def _flag(value: object, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput("must be true or false", field=field, got=repr(value)[:60])
    return value


def _check_reserved(key: str, value: object) -> None:
    if key in ("sequence_id", "sequence_start", "sequence_end") and value not in (0, False, ""):
        raise Unsupported(f"parameters.{key}: sequences are not offered here; each request stands alone")
    if key.startswith("triton_") and key != "triton_enable_empty_final_response":
        raise InvalidInput("the name is reserved", field=f"parameters.{key}", expected="a name without triton_")


def _check_half(name: str, outputs: tuple[str, ...], reply: Reply) -> None:
    """FP16 has no JSON form: say so before the work is done, not after."""
    if outputs and name not in outputs:
        return
    if not (reply.chosen or {}).get(name, reply.binary):
        raise InvalidInput(
            f"output {name!r} is FP16, which has no JSON form",
            field="outputs",
            expected='"parameters": {"binary_data_output": true}',
        )


def _placed(problem: InvalidInput, http: HttpRequest, signature: Signature) -> InvalidInput:
    """The problem with a path in the caller's own message, and with a request that works."""
    field = problem.field
    if field.startswith("inputs.") and HEADER not in http.headers:
        name = field.removeprefix("inputs.")
        names = list(decode_json(http.body).arrays)
        if name in names:
            field = f"inputs[{names.index(name)}]"
    return InvalidInput(
        problem.reason,
        field=field,
        expected=problem.expected,
        got=problem.got,
        example=examples.text(signature, "v2"),
    )


_DATA = b'"data":'


@lru_cache(maxsize=4096)
def _prefix(model: str, version: str) -> bytes:
    text = b'{"model_name":' + orjson.dumps(model) + b","
    return text + b'"model_version":' + orjson.dumps(version) + b"," if version else text


@lru_cache(maxsize=4096)
def _tensor_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return orjson.dumps({"name": name, "datatype": datatype, "shape": shape})[:-1] + b"," + _DATA


def _text(text: str) -> bytes:
    return orjson.dumps(text)


def _data(name: str, array: Array) -> bytes:
    if array.dtype.char == "e":
        raise InvalidInput(f"output {name!r} is FP16, which has no JSON form; ask for binary_data", field="outputs")
    try:
        return flat_json(array)
    except UnicodeDecodeError:
        raise InvalidInput(f"output {name!r} is not UTF-8 text; ask for binary_data", field="outputs") from None


class V2Rest:
    """The protocol: `server_name` is what `GET /v2` says.

    `repository` are the routes of the repository extension, where somebody can do more than read it.
    """

    name = "v2"

    def __init__(self, server_name: str = "turnout", repository: Sequence[Route] = ()) -> None:
        self._server_name = server_name
        self._repository = tuple(repository) or v2_metadata.REPOSITORY
        self._infer = V2Infer()

    def routes(self) -> tuple[Route, ...]:
        """Every path of the protocol that this server answers."""
        infer = self._infer
        return (
            Route("POST", "/v2/models/{name}/infer", codec=infer, summary="Predict (Open Inference Protocol v2)"),
            Route("POST", "/v2/models/{name}/versions/{version}/infer", codec=infer, summary="Predict with a version"),
            *v2_metadata.routes(self._server_name),
            *self._repository,
        )

    def encode_failure(self, http: HttpRequest, failure: Failure) -> HttpResponse:
        """`{"error": "..."}` under the failure's status."""
        return error_body(failure)
