"""Every way to ask a served model, as a function from rows to the answers of its main output."""

from __future__ import annotations

import csv
import io
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from tests.equality.models import Known
from turnout.testing.server import Server

Way = Callable[[Server, Known, np.ndarray], Sequence[Any]]


def _post(server: Server, path: str, body: Any, **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = server.request("POST", path, body, sent)
    assert answer.status == 200, answer
    return answer


def rest_json(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    tensor = {"name": model.input, "datatype": model.datatype, "shape": list(rows.shape), "data": rows.ravel().tolist()}
    outputs = _post(server, f"/v2/models/{model.name}/infer", {"inputs": [tensor]}).json()["outputs"]
    return _flat(next(one["data"] for one in outputs if one["name"] == model.output))


def rest_json_nested(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    tensor = {"name": model.input, "datatype": model.datatype, "shape": list(rows.shape), "data": rows.tolist()}
    asked = {"inputs": [tensor], "outputs": [{"name": model.output}]}
    outputs = _post(server, f"/v2/models/{model.name}/versions/1/infer", asked).json()["outputs"]
    assert [one["name"] for one in outputs] == [model.output]
    return _flat(outputs[0]["data"])


def rest_binary(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    """Our own bytes, by the text of the protocol."""
    data = rows.astype(model.dtype).tobytes()
    tensor = {
        "name": model.input,
        "datatype": model.datatype,
        "shape": list(rows.shape),
        "parameters": {"binary_data_size": len(data)},
    }
    head = {"inputs": [tensor], "outputs": [{"name": model.output, "parameters": {"binary_data": True}}]}
    start = json.dumps(head).encode()
    answer = _post(
        server,
        f"/v2/models/{model.name}/infer",
        start + data,
        inference_header_content_length=str(len(start)),
        content_type="application/octet-stream",
    )
    size = int(answer.headers["inference-header-content-length"])
    (output,) = json.loads(answer.body[:size])["outputs"]
    found = answer.body[size:]
    assert len(found) == output["parameters"]["binary_data_size"]
    if output["datatype"] != "BYTES":
        return np.frombuffer(found, np.float32 if output["datatype"] == "FP32" else np.float64).tolist()
    texts = []
    while found:
        (length,) = struct.unpack_from("<I", found)
        texts.append(found[4 : 4 + length].decode())
        found = found[4 + length :]
    return texts


def triton_http(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    with tritonclient.http.InferenceServerClient(f"{server.host}:{server.port}") as client:
        tensor = tritonclient.http.InferInput(model.input, list(rows.shape), model.datatype)
        tensor.set_data_from_numpy(rows.astype(model.dtype))
        answer = client.infer(model.name, [tensor], request_compression_algorithm="gzip")
        return _text(answer.as_numpy(model.output))


def grpc(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    with tritonclient.grpc.InferenceServerClient(f"{server.host}:{server.grpc_port}") as client:
        tensor = tritonclient.grpc.InferInput(model.input, list(rows.shape), model.datatype)
        tensor.set_data_from_numpy(rows.astype(model.dtype))
        return _text(client.infer(model.name, [tensor]).as_numpy(model.output))


def v1_rows(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    answer = _post(server, f"/v1/models/{model.name}:predict", {"instances": rows.tolist()}).json()["predictions"]
    return _main(model, answer)


def v1_columns(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    answer = _post(server, f"/v1/models/{model.name}:predict", {"inputs": rows.tolist()}).json()["outputs"]
    return _flat(answer[model.output] if isinstance(answer, dict) else answer)


def plain_json(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    answer = _post(server, f"/predict/{model.name}", rows.tolist()).json()["predictions"]
    return _main(model, answer)


def plain_csv(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    text = csv_text(rows)
    answer = _post(server, f"/predict/{model.name}", text.encode(), content_type="text/csv", accept="text/csv")
    rows_back = list(csv.DictReader(io.StringIO(answer.body.decode())))
    (column,) = [name for name in rows_back[0] if name.startswith(model.output)]  # of width 1, it says which
    return [row[column] for row in rows_back]


def csv_text(rows: np.ndarray) -> str:
    """With a header: names that nobody asks for, so the columns count in their order."""
    lines = [",".join("abcd"), *(",".join(map(repr, row)) for row in rows.tolist())]
    return "\n".join(lines) + "\n"


def mlflow_inputs(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    """Only where one model is served."""
    return _main(model, _post(server, "/invocations", {"inputs": rows.tolist()}).json()["predictions"])


def mlflow_split(server: Server, model: Known, rows: np.ndarray) -> Sequence[Any]:
    """Only where one model is served."""
    split = {"columns": list(range(rows.shape[1])), "data": rows.tolist()}
    return _main(model, _post(server, "/invocations", {"dataframe_split": split}).json()["predictions"])


def _main(model: Known, answer: Any) -> Sequence[Any]:
    """Rows or columns of one output or of several: the main one."""
    if isinstance(answer, dict):
        return _flat(answer[model.output])
    return _flat([one[model.output] if isinstance(one, dict) else one for one in answer])


def _flat(values: Any) -> list[Any]:
    return [value for one in values for value in (_flat(one) if isinstance(one, list) else [one])]


def _text(array: np.ndarray) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (
        rest_json,
        rest_json_nested,
        rest_binary,
        triton_http,
        grpc,
        v1_rows,
        v1_columns,
        plain_json,
        plain_csv,
    )
}
