"""BentoML: one service, one worker, an endpoint per model with adaptive batching on, metrics and access log off."""

import bentoml
import numpy as np
from onnx_model import load

quiet = {"access": {"enabled": False}}


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False}, logging=quiet)
class Onnx:
    def __init__(self):
        self.tiny_session = load("tiny")
        self.mlp_session = load("mlp")
        self.heavy_session = load("heavy")

    @bentoml.api(batchable=True, max_batch_size=2048, max_latency_ms=10000)
    def tiny(self, x: np.ndarray) -> np.ndarray:
        return self.tiny_session.run(None, {"x": x.astype(np.float32, copy=False)})[0]

    @bentoml.api(batchable=True, max_batch_size=2048, max_latency_ms=10000)
    def mlp(self, x: np.ndarray) -> np.ndarray:
        return self.mlp_session.run(None, {"x": x.astype(np.float32, copy=False)})[0]

    @bentoml.api(batchable=True, max_batch_size=2048, max_latency_ms=10000)
    def heavy(self, x: np.ndarray) -> np.ndarray:
        return self.heavy_session.run(None, {"x": x.astype(np.float32, copy=False)})[0]
