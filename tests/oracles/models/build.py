"""Writes the catalog's models in the form each server loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .catalog import CATALOG, LOGISTIC_BIAS, LOGISTIC_WEIGHTS, TRITON_MAX_ROWS, Entry, Tensor

HERE = Path(__file__).parent


def build_triton(root: Path) -> Path:
    """A Triton model repository: one directory with config.pbtxt and 1/model.py for each model."""
    for entry in CATALOG:
        version = root / entry.name / "1"
        version.mkdir(parents=True)
        shutil.copy(HERE / "triton_model.py", version / "model.py")
        (root / entry.name / "config.pbtxt").write_text(_triton_config(entry))
    return root


def _triton_config(entry: Entry) -> str:
    rows_first = entry.batched and all(len(t.shape) > 1 for t in (*entry.inputs, *entry.outputs))
    lines = [f'name: "{entry.name}"', 'backend: "python"']
    lines.append(f"max_batch_size: {TRITON_MAX_ROWS if rows_first else 0}")
    for kind, tensors in (("input", entry.inputs), ("output", entry.outputs)):
        for tensor in tensors:
            dims = list(tensor.shape[1:] if rows_first else tensor.shape)
            datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
            lines.append(f'{kind} {{ name: "{tensor.name}" data_type: TYPE_{datatype} dims: {dims} }}')
    lines.append("instance_group [{ kind: KIND_CPU }]")
    return "\n".join(lines) + "\n"


def build_mlserver(root: Path) -> Path:
    """A directory with a model-settings.json for each model."""
    for entry in CATALOG:
        folder = root / entry.name
        folder.mkdir(parents=True)
        settings = {
            "name": entry.name,
            "implementation": "mlserver_model.CatalogModel",
            "inputs": [_tensor_json(tensor) for tensor in entry.inputs],
            "outputs": [_tensor_json(tensor) for tensor in entry.outputs],
            "parameters": {"version": "1"},
        }
        (folder / "model-settings.json").write_text(json.dumps(settings))
    return root


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def build_turnout(root: Path) -> dict[str, str]:
    """What `turnout serve` takes for each model: an ONNX file where ONNX has the type, else a Python class."""
    root.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for entry in CATALOG:
        graph = _onnx_graph(entry)
        if graph is None:
            found[entry.name] = f"python:{HERE / 'turnout_models.py'}:{entry.name.title().replace('_', '')}"
        else:
            path = root / f"{entry.name}.onnx"
            path.write_bytes(graph)
            found[entry.name] = str(path)
    return found


def _onnx_graph(entry: Entry) -> bytes | None:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    if entry.kind in ("linear", "raises") or not entry.batched or entry.inputs[0].datatype == "BYTES":
        return None
    types = {
        "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16,
        "UINT32": TensorProto.UINT32, "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8,
        "INT16": TensorProto.INT16, "INT32": TensorProto.INT32, "INT64": TensorProto.INT64,
        "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    }  # fmt: skip

    def infos(tensors: tuple[Tensor, ...]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                t.name, types[t.datatype], [f"d{axis}" if size < 0 else size for axis, size in enumerate(t.shape)]
            )
            for t in tensors
        ]

    constants = []
    if entry.kind == "identity":
        nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    elif entry.kind == "sum_difference":
        nodes = [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ]
    else:
        weights = np.zeros((4, 2), dtype=np.float32)
        weights[:, 1] = LOGISTIC_WEIGHTS
        constants = [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([0.0, LOGISTIC_BIAS], dtype=np.float32), "b"),
        ]
        nodes = [
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
        ]
    graph = helper.make_graph(nodes, entry.name, infos(entry.inputs), infos(entry.outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
