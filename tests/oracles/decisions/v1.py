"""Where Turnout answers another way than KServe's server over protocol v1."""

from __future__ import annotations

from ..case import JSON_TYPE
from ..ledger import ANY, Claim, Decision, Patch, accepted, refused
from ..outcome import Outcome

V1 = ("kserve",)


def _answered(*values: float) -> Patch:
    return {"status": 200, "type": JSON_TYPE, "body": {"predictions": list(values)}}


def _refusal(fact: Outcome) -> bool:
    return bool(fact.get("status", 0) >= 400)


_STATUS = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]


def _tensor(name: str, *sizes: str) -> dict[str, object]:
    dimensions = [{"size": size, "name": ""} for size in sizes]
    return {name: {"dtype": "DT_DOUBLE", "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": name}}


_SIGNATURE = {
    "model_spec": {"name": "linear", "signature_name": "", "version": "1"},
    "metadata": {
        "signature_def": {
            "signature_def": {
                "serving_default": {
                    "inputs": _tensor("x", "-1", "4"),
                    "outputs": _tensor("score", "-1"),
                    "method_name": "tensorflow/serving/predict",
                }
            }
        }
    },
}
_PAIR = (49.5, 13.5)

DECISIONS = (
    Decision("refusals-are-json", ANY, {"type": JSON_TYPE, "body": "{error}"}, _refusal, V1),
    Decision("v1-status-of-both", ("v1: path model",),
             {"body/model_version_status": _STATUS}, follows=V1),
    Decision("v1-versions", ("v1: path version",), accepted(name="linear", ready=True, model_version_status=_STATUS),
             follows=V1),
    Decision("v1-versions", ("v1: path signature",), accepted(**_SIGNATURE), follows=V1),
    Decision("v1-versions", ("v1: with a version",), _answered(*_PAIR), follows=V1),
    Decision("server-path-with-slash", ("v1: path model with a slash",), refused(404), follows=V1),
    Decision("v1-column-form", ("v1: inputs, column form",),
             {"body/predictions": None, "body/outputs": list(_PAIR)}, follows=V1),
    Decision("v1-column-form", ("v1: inputs by name",),
             {"status": 200, "type": JSON_TYPE, "body": {"outputs": list(_PAIR)}}, follows=V1),
    Decision("v1-instances-by-name", ("v1: instances by name",), _answered(*_PAIR), follows=V1),
    Decision("v1-instances-or-inputs", ("v1: instances and inputs", "v1: neither", "v1: an empty object"),
             refused(), follows=V1),
    Decision("v1-signature-name", ("v1: with an unknown signature", "v1: signature name is a number"),
             refused(), follows=V1),
    Decision("caller-mistake-is-400", ("v1: instances by an unknown name", "v1: instances, one by name",
                                       "v1: inputs a number", "v1: instances too short", "v1: instances too long",
                                       "v1: instances ragged", "v1: instances of strings", "v1: a list",
                                       "v1: a number", "v1: null"), refused(), follows=V1),
    Decision("zero-rows-are-refused", ("v1: no instances",), refused(), follows=V1),
    Decision("shapes-are-the-models", ("v1: instances too deep", "v1: instances flat"), refused(), follows=V1),
    Decision("no-silent-casts", ("v1: instances of numbers in strings", "v1: instances of null",
                                 "v1: instances of booleans"), refused(), follows=V1),
    Decision("numbers-that-are-none", ("v1: nan",), _answered(float("nan")), follows=V1),
    Decision("content-type-is-not-needed", ("v1: a content type of text", "v1: no content type"),
             _answered(*_PAIR), follows=V1),
    Decision("floats-are-printed-short", ("v1: digits of an FP32",), {"body/predictions": [[0.1]]}, follows=V1),
)  # fmt: skip

CLAIMS: tuple[Claim, ...] = ()
