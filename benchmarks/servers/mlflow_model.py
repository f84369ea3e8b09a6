"""Saves one ONNX model in MLflow's format: `python mlflow_model.py MODEL DIRECTORY`."""

import os
import sys
from pathlib import Path

import mlflow.onnx
import numpy as np
import onnx
from mlflow.models import infer_signature

name, directory = sys.argv[1:]
features = {"tiny": 4, "mlp": 784, "heavy": 784}[name]
model = onnx.load(Path(os.environ["BENCHMARK_MODELS"]) / f"{name}.onnx")
mlflow.onnx.save_model(
    model,
    directory,
    signature=infer_signature(np.zeros((2, features), np.float32)),
    onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
    onnx_execution_providers=["CPUExecutionProvider"],
    pip_requirements=["mlflow", "onnxruntime"],
)
