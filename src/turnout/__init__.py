"""Turnout serves machine-learning models: a trained model goes in, a prediction service comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnout.entrypoints.library import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`turnout.load` is looked up when first used: workers import this package and want none of the doors."""
    if name == "load":
        from turnout.entrypoints.library import load

        return load
    raise AttributeError(f"module 'turnout' has no attribute {name!r}")
