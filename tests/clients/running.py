"""A real `turnout serve` process with real models."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import skops.io
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

TURNOUT = Path(sys.executable).parent / "turnout"
READY_SECONDS = 60.0
FILES = {"iris": "iris.onnx", "flowers": "flowers.skops", "echo": "echo.onnx"}
#: What `echo` gives back: a tensor of shape [-1, 2] for each of these, by its name in lower case.
ECHO_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


@dataclass(frozen=True)
class Models:
    """The served models as plain functions, to compare answers with: `iris` is ONNX, `flowers` takes a table."""

    iris: LogisticRegression
    flowers: LogisticRegression
    rows: np.ndarray
    table: pd.DataFrame


@dataclass(frozen=True)
class Server:
    """A running server: addresses as `host:port`."""

    http: str
    grpc: str
    process: subprocess.Popen[bytes]
    models: Models


def _echo_model() -> onnx.ModelProto:
    nodes, inputs, outputs = [], [], []
    for datatype, kind in ECHO_TYPES.items():
        name = datatype.lower()
        nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
        inputs.append(helper.make_tensor_value_info(name, kind, ["rows", 2]))
        outputs.append(helper.make_tensor_value_info(f"{name}_out", kind, ["rows", 2]))
    graph = helper.make_graph(nodes, "echo", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _write_models(folder: Path) -> Models:
    table, labels = load_iris(return_X_y=True, as_frame=True)
    rows = table.to_numpy(np.float32)
    iris = LogisticRegression(max_iter=500).fit(rows, labels)
    flowers = LogisticRegression(max_iter=500).fit(table, np.array(["setosa", "versicolor", "virginica"])[labels])
    onnx.save(to_onnx(iris, rows[:1], options={"zipmap": False}), folder / "iris.onnx")
    onnx.save(_echo_model(), folder / "echo.onnx")
    skops.io.dump(flowers, folder / "flowers.skops")
    return Models(iris, flowers, rows, table)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_ready(process: subprocess.Popen[bytes], http: str, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"http://{http}/v2/health/ready", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    pytest.fail(f"the server was not ready in {READY_SECONDS} s:\n{log.read_text()}")


@contextmanager
def running(folder: Path, *names: str) -> Iterator[Server]:
    """`turnout serve` with these models, or with `iris`, `flowers` and `echo`, out of files written to `folder`."""
    models = _write_models(folder)
    ports = _free_port(), _free_port()
    log = folder / "server.log"
    command = [TURNOUT, "serve", *(f"{name}={FILES[name]}" for name in names or FILES)]
    command += ["--port", str(ports[0]), "--grpc-port", str(ports[1])]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        http = f"127.0.0.1:{ports[0]}"
        _wait_ready(process, http, log)
        yield Server(http, f"127.0.0.1:{ports[1]}", process, models)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
