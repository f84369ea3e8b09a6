"""Makes a compact, comparable fact of an answer, and says where two of them differ.

What is set aside, for all servers alike: the order of outputs and of JSON keys, nested against flat `data`, and
float digits beyond what the data type holds (an FP32 value is compared as an FP32 value).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import json_format

from .case import HEADER_LENGTH, Case
from .models.catalog import NUMPY_TYPES
from .send import Answer

Outcome = dict[str, Any]
_MISSING = "(absent)"
#: Data of more elements than this are recorded as a digest.
LONG = 200
#: The parameters that say who gave an answer, and what stands for them when all are there and right.
PROVENANCE = ("served_by", "digest", "variant", "revision", "degraded", "prediction_id")
TOLD = "told"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREDICTION_ID = re.compile(r"R0-0-[0-9a-f]{24}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def outcome(case: Case, answer: Answer) -> Outcome:
    """The compact fact; `says` is the wording of a refusal, recorded for people and never compared."""
    if answer.failure:
        return {"failure": answer.failure}
    fact = _grpc_outcome(case, answer) if case.door == "grpc" else _http_outcome(case, answer)
    body = fact.get("body")
    if isinstance(body, dict) and "model_name" in body:
        _fold_provenance(body)
    if isinstance(body, dict) and _UUID.fullmatch(str(body.get("id"))) and body["id"].encode() not in case.body:
        body["id"] = "(generated)"
    return fact


def _fold_provenance(body: dict[str, Any]) -> None:
    """Who gave the answer, which Turnout says in parameters that differ from request to request, as one member."""
    parameters = dict(body.get("parameters") or {})
    said = {name: _plain(parameters.pop(name)) for name in PROVENANCE if name in parameters}
    if not said:
        return
    version = body.get("model_version")
    expected = {"served_by": f"{body['model_name']}@{version}", "variant": version, "revision": 0}
    place = _PREDICTION_ID.fullmatch(str(said.pop("prediction_id", "")))
    digest = said.pop("digest", None)  # known a moment after the model is ready
    place = place if digest is None or _DIGEST.fullmatch(str(digest)) else None
    body["provenance"] = TOLD if said == expected and place else f"not as expected: {said}"
    del body["parameters"]
    if parameters:
        body["parameters"] = parameters


def _plain(value: Any) -> Any:
    """A parameter's value, as JSON or as protobuf's JSON has it."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    return int(inner) if kind == "int64_param" else inner


def differences(want: Outcome, got: Outcome) -> dict[str, tuple[Any, Any]]:
    """Aspect to (wanted, got). Where the status differs nothing else is worth saying."""
    for key in ("failure", "status", "code"):
        if want.get(key) != got.get(key):
            return {"status": (_short(want), _short(got))}
    return dict(_walk("", want, got))


def _short(fact: Outcome) -> Any:
    return fact.get("failure") or fact.get("status") or fact.get("code")


def _walk(path: str, want: Any, got: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() | got.keys()):
            if key != "says":
                yield from _walk(f"{path}/{key}".lstrip("/"), want.get(key, _MISSING), got.get(key, _MISSING))
    elif not _same(want, got):
        yield path, (want, got)


def _same(want: Any, got: Any) -> bool:
    if isinstance(want, float) and isinstance(got, float) and math.isnan(want):
        return math.isnan(got)
    if isinstance(want, list) and isinstance(got, list):
        return len(want) == len(got) and all(map(_same, want, got))
    return bool(want == got) and isinstance(want, bool) == isinstance(got, bool)


def _http_outcome(case: Case, answer: Answer) -> Outcome:
    headers = {key.lower(): value for key, value in answer.headers}
    fact: Outcome = {"status": answer.status}
    body = answer.body
    encoding = headers.get("content-encoding")
    if encoding:
        fact["encoding"] = encoding
        body = gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)
    if case.method == "HEAD":
        return fact
    fact["type"] = headers.get("content-type", _MISSING).replace(" ", "").lower()
    length = headers.get(HEADER_LENGTH.lower())
    if length is not None:
        document = json.loads(body[: int(length)])
        return fact | {"body": _tensors(document, body[int(length) :])}
    try:
        document = json.loads(body)
    except ValueError:
        return fact | {"body": body.decode("utf-8", "replace")[:200]}
    if answer.status >= 400:
        return fact | _refusal(document)
    if isinstance(document, dict) and isinstance(document.get("outputs"), list) and "model_name" in document:
        document = _tensors(document, b"")
    if isinstance(document, list):
        document = sorted(document, key=lambda entry: str(entry.get("name")))
    return fact | {"body": document}


def _refusal(document: Any) -> Outcome:
    if not isinstance(document, dict):
        return {"body": document}
    form = "{" + ",".join(sorted(document)) + "}"
    says = document.get("error") or document.get("message") or json.dumps(document)
    return {"body": form, "says": str(says)[:160]}


def _tensors(document: dict[str, Any], blobs: bytes) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    at = 0
    for output in document["outputs"]:
        fact = dict(output)
        parameters = dict(fact.pop("parameters", {}) or {})
        size = parameters.pop("binary_data_size", None)
        if parameters:
            fact["parameters"] = parameters
        if size is not None:
            fact["data"] = _decode(fact["datatype"], blobs[at : at + size])
            fact["binary"] = True
            at += size
        elif "data" in fact:
            fact["data"] = _rounded(fact["datatype"], _flat(fact["data"]))
        if len(fact.get("data", ())) > LONG:
            fact["data"] = _digest(fact["data"])
        outputs[fact.pop("name")] = fact
    if at != len(blobs):
        outputs["(left over)"] = len(blobs) - at
    return document | {"outputs": outputs}


def _digest(values: list[Any]) -> str:
    return f"{len(values)} elements, sha256 {hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]}"


def _flat(data: Any) -> list[Any]:
    return [leaf for item in data for leaf in _flat(item)] if isinstance(data, list) else [data]


def _rounded(datatype: str, values: list[Any]) -> list[Any]:
    if datatype not in ("FP16", "FP32"):
        return values
    digits = 3 if datatype == "FP16" else 6
    return [float(f"%.{digits}g" % v) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in values]


def _decode(datatype: str, blob: bytes) -> list[Any]:
    if datatype != "BYTES":
        values = np.frombuffer(blob, dtype=NUMPY_TYPES[datatype])
        return _rounded(datatype, values.tolist())
    elements = []
    at = 0
    while at < len(blob):
        size = int.from_bytes(blob[at : at + 4], "little")
        elements.append(blob[at + 4 : at + 4 + size].decode("latin-1"))
        at += 4 + size
    return elements


def _grpc_outcome(case: Case, answer: Answer) -> Outcome:
    if answer.code != "OK":
        return {"code": answer.code, "says": answer.details[:160]}
    from tritonclient.grpc import service_pb2

    method = case.target.rpartition("/")[2]
    if not case.target.startswith("/inference."):
        return {"code": "OK", "body": answer.body.hex()}
    message = getattr(service_pb2, f"{method}Response")()
    message.ParseFromString(answer.body)
    if method != "ModelInfer":
        document = json_format.MessageToDict(message, preserving_proto_field_name=True)
        if "models" in document:
            document["models"].sort(key=lambda entry: entry["name"])
        return {"code": "OK", "body": document}
    return {"code": "OK", "body": _grpc_tensors(message)}


def _grpc_tensors(message: Any) -> dict[str, Any]:
    document = json_format.MessageToDict(message, preserving_proto_field_name=True)
    document.pop("raw_output_contents", None)
    outputs: dict[str, Any] = {}
    for index, output in enumerate(message.outputs):
        fact: dict[str, Any] = {"datatype": output.datatype, "shape": list(output.shape)}
        parameters = document["outputs"][index].get("parameters")
        if parameters:
            fact["parameters"] = parameters
        if message.raw_output_contents:
            fact["data"] = _decode(output.datatype, message.raw_output_contents[index])
            fact["raw"] = True
        else:
            fact["data"] = _rounded(output.datatype, _typed(output.contents))
        outputs[output.name] = fact
    return document | {"outputs": outputs}


def _typed(contents: Any) -> list[Any]:
    for _, values in contents.ListFields():
        return [v.decode("latin-1") if isinstance(v, bytes) else v for v in values]
    return []
