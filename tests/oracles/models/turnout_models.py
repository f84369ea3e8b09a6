"""The models of the catalog that are no ONNX files, as plain classes for Turnout."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnout.core.signature import Signature, TensorSpec

sys.path.insert(0, str(Path(__file__).parent))

from catalog import BY_NAME, LINEAR_COLUMNS
from compute import compute


class _CatalogModel:
    """A declared signature and a batch function."""

    name: str
    columns: tuple[str, ...] = ()

    def __init__(self) -> None:
        entry = BY_NAME[self.name]
        self.kind = entry.kind
        self.signature = Signature(
            tuple(TensorSpec(t.name, t.datatype, t.shape, self.columns, text=False) for t in entry.inputs),
            tuple(TensorSpec(t.name, t.datatype, t.shape, text=False) for t in entry.outputs),
            batched=entry.batched,
            source="user",
        )

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return compute(self.kind, dict(inputs))


class IdentityBytes(_CatalogModel):
    name = "identity_bytes"


class Vector(_CatalogModel):
    name = "vector"


class Linear(_CatalogModel):
    name = "linear"
    columns = LINEAR_COLUMNS


class Raises(_CatalogModel):
    name = "raises"
