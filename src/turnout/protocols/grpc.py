"""What the gRPC door and the gRPC codecs hand each other: messages after framing and decompression.

A `Failure`'s code is the gRPC status number by definition (`Code.value`), so there is no table here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple, Protocol

from turnout.core.messages import Context, InferRequest, InferResponse
from turnout.core.servable import ServedModel, Serving

Metadata = Mapping[str, str]


class GrpcInferCodec(Protocol):
    """Decodes one message that asks for a prediction and encodes its answer. Stateless.

    A gRPC request names its model inside the message, so decoding also finds the model. Decoded tensors may be
    views into the message, which therefore must not change afterwards. `encode` may return parts: large
    tensors are sent without being joined.
    """

    def decode(
        self, message: bytes | memoryview, serving: Serving, context: Context
    ) -> tuple[ServedModel, InferRequest]: ...
    def encode(self, request: InferRequest, response: InferResponse) -> bytes | list[bytes | memoryview]: ...


class GrpcAnswer(Protocol):
    """Answers a unary call that needs no prediction."""

    def __call__(self, message: bytes | memoryview, serving: Serving, /) -> bytes: ...


class GrpcStream(Protocol):
    """Answers a call with a stream of messages on either side; a unary side is a stream of one."""

    def __call__(self, messages: AsyncIterator[bytes], serving: Serving, /) -> AsyncIterator[bytes]: ...


class GrpcMethod(NamedTuple):
    """One method by its full path (`/package.Service/Method`). Exactly one of the three handlers is set."""

    path: str
    infer: GrpcInferCodec | None = None
    answer: GrpcAnswer | None = None
    stream: GrpcStream | None = None
