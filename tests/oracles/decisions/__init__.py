"""All decisions and claims of the battery. Their reasons: docs/decisions/oracle-differences.md."""

from __future__ import annotations

from ..ledger import ANY, Claim, Decision
from ..outcome import TOLD, Outcome
from . import claims, mlflow, v1, v2_grpc, v2_rest


def _answer(fact: Outcome) -> bool:
    body = fact.get("body")
    return isinstance(body, dict) and "model_name" in body and "outputs" in body


DECISIONS: tuple[Decision, ...] = (
    *v2_rest.DECISIONS,
    *v2_grpc.DECISIONS,
    *v1.DECISIONS,
    *mlflow.DECISIONS,
    Decision("answers-say-who-gave-them", ANY, {"body/provenance": TOLD}, _answer),
)

CLAIMS: tuple[Claim, ...] = (
    *claims.CLAIMS,
    *v1.CLAIMS,
    *mlflow.CLAIMS,
)
