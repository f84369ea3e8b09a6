"""Where Turnout answers another way than the MLflow scoring server."""

from __future__ import annotations

from turnout import __version__

from ..case import JSON_TYPE
from ..ledger import ANY, Claim, Decision, Patch
from ..outcome import Outcome

ML = ("mlflow",)
_FORM = {"type": JSON_TYPE, "body": "{error_code,message}"}


def _invocations(fact: Outcome) -> bool:
    return fact.get("status") in (400, 415)


def _refused() -> Patch:
    return {"status": 400, **_FORM}


def _answered(*values: float) -> Patch:
    return {"status": 200, "type": JSON_TYPE, "body": {"predictions": list(values)}}


DECISIONS = (
    Decision("mlflow-refusals", ANY, _FORM, _invocations, ML),
    Decision("refusals-are-json", ("mlflow: get invocations", "mlflow: post ping"), {"body": "{error}"}, follows=ML),
    Decision("own-name-and-extensions", ("mlflow: version",),
             {"type": "text/plain;charset=utf-8", "body": __version__}, follows=ML),
    Decision("rows-without-names", ("mlflow: split without columns", "mlflow: instances", "mlflow: inputs"),
             _answered(49.5, 13.5), follows=ML),
    Decision("rows-are-complete", ("mlflow: split ragged", "mlflow: records, one short", "mlflow: csv ragged"),
             _refused(), follows=ML),
    Decision("zero-rows-are-refused", ("mlflow: split no rows", "mlflow: csv only a head"), _refused(), follows=ML),
    Decision("no-silent-casts", ("mlflow: numbers in strings", "mlflow: booleans"), _refused(), follows=ML),
    Decision("parameters-are-checked", ("mlflow: params a list",), _refused(), follows=ML),
)  # fmt: skip

CLAIMS: tuple[Claim, ...] = ()
