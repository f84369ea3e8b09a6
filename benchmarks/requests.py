"""The requests, made beforehand: thousands of different ones, in the form that each server understands.

A file holds what the load generator sends and what must come back (see `load/requests.c`): the request's own id where
the protocol echoes it, the leading digits of a predicted probability, or the last float of a binary answer.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from benchmarks.forest import FOREST, PICKLE
from benchmarks.models import FEATURES
from benchmarks.places import MODEL_FILES, REQUEST_FILES

CHECK_ID, CHECK_TEXT, CHECK_TAIL = 1, 2, 4
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """One request before it has a form: its id, its rows, and what the model says to them."""

    id: str
    model: str
    rows: Floats
    tail: float
    text: str

    @property
    def numbers(self) -> list[float]:
        """The rows' values as they are written in JSON: six decimals."""
        return [round(value, 6) for value in self.rows.ravel().astype(np.float64).tolist()]

    @property
    def nested(self) -> list[list[float]]:
        """The same as a list of rows."""
        flat, width = self.numbers, self.rows.shape[1]
        return [flat[start : start + width] for start in range(0, len(flat), width)]


def _post(path: str, body: bytes, headers: str, deadline: float | None) -> bytes:
    if deadline is not None:
        headers += f"X-Request-Deadline-Ms: {deadline * 1000:.0f}\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _json(path: str, body: object, deadline: float | None) -> bytes:
    return _post(path, orjson.dumps(body), "Content-Type: application/json\r\n", deadline)


def _v2(request: Request, deadline: float | None) -> bytes:
    tensor = {"name": "x", "shape": request.rows.shape, "datatype": "FP32", "data": request.numbers}
    return _json(f"/v2/models/{request.model}/infer", {"id": request.id, "inputs": [tensor]}, deadline)


def _v2_binary(request: Request, deadline: float | None) -> bytes:
    blob = request.rows.tobytes()
    tensor = {"name": "x", "shape": request.rows.shape, "datatype": "FP32",
              "parameters": {"binary_data_size": len(blob)}}  # fmt: skip
    head = orjson.dumps({"id": request.id, "inputs": [tensor], "parameters": {"binary_data_output": True}})
    headers = f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(head)}\r\n"
    return _post(f"/v2/models/{request.model}/infer", head + blob, headers, deadline)


def _bentoml(request: Request, deadline: float | None) -> bytes:
    return _json(f"/{request.model}", {"x": request.nested}, deadline)


def _litserve(request: Request, deadline: float | None) -> bytes:
    return _json("/predict", {"id": request.id, "x": request.nested}, deadline)


def _mlflow(request: Request, deadline: float | None) -> bytes:
    return _json("/invocations", {"inputs": request.nested}, deadline)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _grpc(request: Request, _deadline: float | None) -> bytes:
    shape = b"".join(_varint(size) for size in request.rows.shape)
    tensor = _field(1, b"x") + _field(2, b"FP32") + _field(3, shape)
    message = _field(1, request.model.encode()) + _field(3, request.id.encode()) + _field(5, tensor)
    message += _field(7, request.rows.tobytes())
    return struct.pack(">BI", 0, len(message)) + message


def _forest(request: Request, deadline: float | None, wanted: str = "") -> bytes:
    tensor = {"name": "x", "shape": request.rows.shape, "datatype": "FP64", "data": request.numbers}
    body: dict[str, object] = {"id": request.id, "inputs": [tensor]}
    if wanted:
        body["outputs"] = [{"name": wanted}]
    return _json(f"/v2/models/{request.model}/infer", body, deadline)


def _forest_mlserver(request: Request, deadline: float | None) -> bytes:
    return _forest(request, deadline, "predict_proba")


FORMS: dict[str, tuple[Callable[[Request, float | None], bytes], int]] = {
    "v2": (_v2, CHECK_ID | CHECK_TEXT),
    "v2-binary": (_v2_binary, CHECK_ID | CHECK_TAIL),
    "grpc": (_grpc, CHECK_ID | CHECK_TAIL),
    "bentoml": (_bentoml, CHECK_TEXT),
    "litserve": (_litserve, CHECK_ID | CHECK_TEXT),
    "mlflow": (_mlflow, CHECK_TEXT),
    "forest": (_forest, CHECK_ID | CHECK_TEXT),
    "forest-mlserver": (_forest_mlserver, CHECK_ID | CHECK_TEXT),
    "fixed": (_v2, 0),  # a server without a model: nothing to check but the status
}


def _requests(model: str, rows: int) -> Iterator[Request]:
    """Different requests without end. Only those whose answer can be told from its first four decimals."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(MODEL_FILES / f"{model}.onnx"), options)
    random = np.random.default_rng(7)
    number = 0
    while True:
        if model == "tiny":
            values = random.normal(0, 1.5, (rows, 4))
        else:
            values = random.random((rows, FEATURES[model])) * random.random((rows, 1))
        inputs = np.round(values, 6).astype(np.float32)
        answer = session.run(None, {"x": inputs})[0]
        best = float(answer[0].max())
        if 0.1 <= best < 0.99 and 0.05 < best * 1e4 % 1 < 0.95:
            yield Request(f"q{number:07d}", model, inputs, float(answer[-1, -1]), f"{int(best * 1e4) / 1e4:.4f}")
            number += 1


def _forest_requests(count: int) -> Iterator[Request]:
    """Rows for the forest, with what scikit-learn itself says to them. Its votes are hundredths."""
    rows = np.round(np.random.default_rng(7).normal(0, 2, (2 * count, FEATURES[FOREST])), 3)
    answers = joblib.load(PICKLE).predict_proba(rows)
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        best = float(answer.max())
        if best < 0.99 and round(best * 100) % 10 and best != 0.5:
            yield Request(f"q{number:07d}", FOREST, row.reshape(1, -1), 0.0, repr(best))


def request_file(form: str, model: str, rows: int, deadline: float | None = None) -> Path:
    """The file of requests of this form, made where it is not there yet."""
    late = "" if deadline is None or form == "grpc" else f"-{deadline * 1000:.0f}ms"
    path = REQUEST_FILES / f"{form}-{model}-{rows}{late}.bin"
    if path.exists():
        return path
    count = 2000 if rows == 1 and model != "heavy" else 200 if rows * FEATURES[model] < 100_000 else 16
    encode, checks = FORMS[form]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(b"TLOAD1\0\0" + struct.pack("<I", count))
        made = _forest_requests(count) if model == FOREST else _requests(model, rows)
        for request, _ in zip(made, range(count), strict=False):
            sent, identity, text = encode(request, deadline), request.id.encode(), request.text.encode()
            file.write(struct.pack("<IIIIf", len(sent), len(identity), len(text), checks, request.tail))
            file.write(identity + text + sent)
    draft.rename(path)
    return path


def first_request(path: Path) -> bytes:
    """The first request of a file, to ask a server whether it is there."""
    data = path.open("rb").read(1 << 22)
    length, identity, text = struct.unpack_from("<III", data, 12)
    start = 12 + 20 + identity + text
    return data[start : start + length]
