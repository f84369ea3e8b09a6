"""The battery: every request, by the part of the protocol it tries."""

from __future__ import annotations

from ..case import Case
from . import (
    extensions,
    grpc_calls,
    grpc_rules,
    mlflow,
    rest_binary,
    rest_encoding,
    rest_infer,
    rest_json,
    rest_paths,
    rest_rules,
    v1,
)

CASES: tuple[Case, ...] = (
    *rest_paths.CASES,
    *rest_infer.CASES,
    *rest_rules.CASES,
    *rest_json.CASES,
    *rest_binary.CASES,
    *rest_encoding.CASES,
    *extensions.CASES,
    *grpc_calls.CASES,
    *grpc_rules.CASES,
    *v1.CASES,
    *mlflow.CASES,
)
