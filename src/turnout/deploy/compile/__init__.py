"""A model made faster, with proof: converted to ONNX, compared on real and on hard rows, measured by batch size."""

from turnout.deploy.compile.auto import compile_auto

__all__ = ["compile_auto"]
