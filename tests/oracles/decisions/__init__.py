"""All decisions and claims of the battery. Their reasons: docs/decisions/oracle-differences.md."""

from __future__ import annotations

from ..ledger import Claim, Decision
from . import claims, mlflow, v1, v2_grpc, v2_rest

DECISIONS: tuple[Decision, ...] = (
    *v2_rest.DECISIONS,
    *v2_grpc.DECISIONS,
    *v1.DECISIONS,
    *mlflow.DECISIONS,
)

CLAIMS: tuple[Claim, ...] = (
    *claims.CLAIMS,
    *v1.CLAIMS,
    *mlflow.CLAIMS,
)
