"""Where Turnout answers another way than KServe's server over protocol v1."""

from __future__ import annotations

from ..case import JSON_TYPE
from ..ledger import ANY, Claim, Decision, Patch, refused
from ..outcome import Outcome

V1 = ("kserve",)


def _answered(*values: float) -> Patch:
    return {"status": 200, "type": JSON_TYPE, "body": {"predictions": list(values)}}


def _refusal(fact: Outcome) -> bool:
    return bool(fact.get("status", 0) >= 400)


_PAIR = (49.5, 13.5)

DECISIONS = (
    Decision("refusals-are-json", ANY, {"type": JSON_TYPE, "body": "{error}"}, _refusal, V1),
    Decision("v1-status-of-both", ("v1: path model",),
             {"body/model_version_status": [
                 {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]},
             follows=V1),
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
    Decision("floats-are-printed-short", ("v1: two outputs",),
             {"body/predictions": [{"label": 0, "probabilities": [0.5926666, 0.4073334]},
                                   {"label": 1, "probabilities": [1.1478768e-05, 0.9999885]}]}, follows=V1),
)  # fmt: skip

CLAIMS: tuple[Claim, ...] = ()
