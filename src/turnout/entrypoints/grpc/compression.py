"""Messages compressed with gzip or deflate: small ones at once, large ones in a thread, so that nobody waits."""

from __future__ import annotations

import zlib
from asyncio import AbstractEventLoop, Future
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from turnout.core.errors import Failure, InvalidInput, TooLarge
from turnout.entrypoints.grpc.frames import Data

#: Answers below this are sent as they are even where compression was asked for (bytes).
_COMPRESS_FROM = 1024
#: What is larger than this, before or after, is not done on the event loop (bytes).
_AT_ONCE = 64 * 1024
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class Compression:
    """Compresses and decompresses for one door. Its one thread keeps large messages in their order."""

    def __init__(self, loop: AbstractEventLoop, max_bytes: int) -> None:
        self._loop = loop
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, "grpc-compression")

    def decompress(self, message: Data, encoding: str) -> bytes | Future[bytes]:
        """A message as it was before `encoding`, now or later. Raises Failure, InvalidInput or TooLarge."""
        if len(message) <= _AT_ONCE:
            body = decompress(message, encoding, min(_AT_ONCE, self._max_bytes), self._max_bytes)
            if body is not None:
                return body
        return self._loop.run_in_executor(self._thread, self._inflate, message, encoding)

    def compress(self, parts: Sequence[Data], encoding: str) -> bytes | Future[bytes] | None:
        """The message compressed, now or later; None where it is to be sent as it is."""
        if encoding == "identity":
            return None
        size = sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)
        if size < _COMPRESS_FROM:
            return None
        if size <= _AT_ONCE:
            return compress(parts, encoding)
        return self._loop.run_in_executor(self._thread, compress, parts, encoding)

    def close(self) -> None:
        """Ends the thread when it is done with what it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _inflate(self, message: Data, encoding: str) -> bytes:
        body = decompress(message, encoding, self._max_bytes, self._max_bytes)
        assert body is not None  # noqa: S101  it is only None where there was a smaller bound
        return body


def decompress(message: Data, encoding: str, at_most: int, max_bytes: int) -> bytes | None:
    """A message as it was before `encoding`; None where it is over `at_most`, if that is less than `max_bytes`."""
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise Failure("a message with the compressed flag, but no grpc-encoding names its compression")
    decoder = zlib.decompressobj(bits)
    try:
        body = decoder.decompress(message, at_most + 1)
    except zlib.error:
        raise InvalidInput("a compressed message cannot be read", field="grpc-encoding", expected=encoding) from None
    if len(body) > at_most:
        if at_most < max_bytes:
            return None
        raise TooLarge(f"a message of more than {max_bytes} bytes after decompression; that is this server's limit")
    if not decoder.eof or decoder.unused_data:
        raise InvalidInput("a compressed message is cut off or too long", field="grpc-encoding", expected=encoding)
    return body


def compress(parts: Sequence[Data], encoding: str) -> bytes:
    """One message out of its parts, compressed; quickly rather than well."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return b"".join([*(encoder.compress(part) for part in parts), encoder.flush()])
