"""Where Turnout answers another way than Triton over gRPC."""

from __future__ import annotations

from turnout import __version__

from ..ledger import Decision, refused_grpc
from ..outcome import Outcome


def _ok(fact: Outcome) -> bool:
    return fact.get("code") == "OK"


DECISIONS = (
    Decision("own-name-and-extensions", ("grpc: server metadata",),
             {"body/name": "turnout", "body/version": __version__,
              "body/extensions": ["binary_tensor_data", "parameters"]}),
    Decision("platform-is-the-format", ("grpc metadata: *",), {"body/platform": "onnx"}, _ok),
    Decision("platform-is-the-format", ("grpc metadata: no row axis",), {"body/platform": "python"}),
    Decision("versions-are-exact", ("grpc metadata: version with leading zeros",), refused_grpc("NOT_FOUND")),
    Decision("versions-are-exact", ("grpc ready: version with leading zeros",), {"code": "OK", "body": {}}),
    Decision("empty-name-is-invalid", ("grpc metadata: no name", "grpc ready: no name", "grpc rules: no model name",
                                       "grpc rules: an empty message"), refused_grpc()),
    Decision("caller-mistake-is-400", ("grpc: metadata from broken bytes", "grpc rules: broken bytes",
                                       "grpc rules: cut bytes"), refused_grpc()),
    Decision("no-row-limit", ("grpc infer: raw, nine rows",),
             {"code": "OK",
              "body": {"model_name": "simple", "model_version": "1",
                       "outputs": {"OUTPUT0": {"datatype": "INT32", "shape": [9, 16], "raw": True,
                                               "data": list(range(1, 17)) * 9},
                                   "OUTPUT1": {"datatype": "INT32", "shape": [9, 16], "raw": True,
                                               "data": list(range(-1, 15)) * 9}}}}),
    Decision("uint64-parameters", ("grpc infer: a uint64 parameter",),
             {"code": "OK",
              "body": {"model_name": "simple", "model_version": "1",
                       "outputs": {"OUTPUT0": {"datatype": "INT32", "shape": [1, 16], "raw": True,
                                               "data": list(range(1, 17))},
                                   "OUTPUT1": {"datatype": "INT32", "shape": [1, 16], "raw": True,
                                               "data": list(range(-1, 15))}}}}),
    Decision("extensions-not-offered", ("grpc extensions: configuration", "grpc extensions: shared memory",
                                        "grpc extensions: log settings", "grpc extensions: load *"),
             refused_grpc("UNIMPLEMENTED")),
    Decision("surplus-raw-contents", ("grpc rules: raw one too many",), refused_grpc()),
    Decision("out-of-range-is-refused", ("grpc rules: typed over *", "grpc rules: typed under *"), refused_grpc()),
    Decision("empty-tensors-need-no-contents", ("grpc rules: typed, zero elements",),
             {"code": "OK",
              "body": {"model_name": "identity_fp32", "model_version": "1",
                       "outputs": {"OUTPUT0": {"datatype": "FP32", "shape": [1, 0], "raw": True, "data": []}}}}),
)  # fmt: skip
