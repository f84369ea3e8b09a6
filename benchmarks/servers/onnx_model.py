"""The models, for every server that calls onnxruntime itself: one intra-op thread, no inter-op threads."""

import os
from pathlib import Path

import onnxruntime

MODELS = ("tiny", "mlp", "heavy")


def load(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = Path(os.environ["BENCHMARK_MODELS"]) / f"{name}.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
