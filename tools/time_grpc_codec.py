"""Times the ModelInfer codec against protobuf's own reading and writing of the same messages.

Run `python tools/time_grpc_codec.py` on a quiet machine. Prints microseconds, the best of many rounds.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel, State
from turnout.core.signature import Signature, TensorSpec
from turnout.protocols.grpc_messages import message_class
from turnout.protocols.v2_grpc_infer import ModelInferCodec

Request = message_class("inference.ModelInferRequest")
Response = message_class("inference.ModelInferResponse")


class Nothing:
    """Never asked: nothing is predicted here."""

    async def infer(self, request: InferRequest) -> InferResponse:
        """Fails."""
        raise AssertionError(request.model)


@dataclass
class OneModel:
    """A model, and a serving of that model alone."""

    columns: int
    name: str = "m"
    version: str = "1"
    format: str = "onnx"
    state: State = State.READY
    reason: str = ""
    ready: bool = True

    def __post_init__(self) -> None:
        spec = TensorSpec("x", "FP32", (-1, self.columns))
        self.signature = Signature((spec,), (TensorSpec("y", "FP32", (-1, self.columns)),))
        self.servable = Nothing()

    def models(self) -> Sequence[ServedModel]:
        """This model."""
        return [self]

    def find(self, name: str, version: str = "") -> ServedModel:
        """This model, whatever it is called."""
        return self


def microseconds(run: Callable[[], object]) -> float:
    """The best time of one call."""
    number = max(1, int(0.02 / max(timeit.timeit(run, number=3) / 3, 1e-7)))
    return min(timeit.repeat(run, number=number, repeat=25)) / number * 1e6


def compare(rows: int, columns: int) -> None:
    """Prints the four times for one shape."""
    array = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
    request = Request(model_name="m", id="0123456789", raw_input_contents=[array.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=array.shape)
    request.outputs.add(name="y")
    message, serving, context, codec = request.SerializeToString(), OneModel(columns), Context(), ModelInferCodec()
    decoded = codec.decode(message, serving, context)[1]
    response = InferResponse({"y": array}, "m", "1")

    def protobuf_decode() -> object:
        parsed = Request.FromString(message)
        names = [output.name for output in parsed.outputs]
        inputs = {
            tensor.name: np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
            for tensor, raw in zip(parsed.inputs, parsed.raw_input_contents, strict=True)
        }
        checked, count = serving.signature.validate(inputs)
        return InferRequest(parsed.model_name, checked, count, Context(parsed.id), "", tuple(names))

    def protobuf_encode() -> object:
        answer = Response(model_name="m", model_version="1", id="0123456789", raw_output_contents=[array.tobytes()])
        answer.outputs.add(name="y", datatype="FP32", shape=array.shape)
        return answer.SerializeToString()

    for name, ours, theirs in (
        ("decode and check", lambda: codec.decode(message, serving, context), protobuf_decode),
        ("encode", lambda: codec.encode(decoded, response), protobuf_encode),
    ):
        sys.stdout.write(
            f"[{rows}, {columns}] {name}: {microseconds(ours):.1f} us; by protobuf {microseconds(theirs):.1f} us\n"
        )


if __name__ == "__main__":
    for shape in ((1, 4), (1, 784), (1000, 784)):
        compare(*shape)
