"""What one peer may cost: every bound of the gRPC door in one place."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

#: The largest flow-control window, and the largest stream identifier (RFC 9113).
MAX_WINDOW = 2**31 - 1
#: The frame size every endpoint accepts, and the largest one it may announce (bytes).
MIN_FRAME = 2**14
MAX_FRAME = 2**24 - 1
#: The window every stream and connection starts with until something else is said (bytes).
DEFAULT_WINDOW = 2**16 - 1


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Sizes in bytes, times in seconds, rates per second. Raises ValueError where a value cannot be announced.

    `max_streams` is announced: 1,000 calls in flight fill a batcher many times over, and cost at most a few
    hundred bytes each while they wait. A client that wants more queues them itself or opens a connection.
    `max_frame_bytes` is announced: big frames are received straight into the message they belong to.
    `max_buffered_bytes` and `max_total_buffered_bytes` bound the messages that are still arriving or that wait
    to be read by a streaming call, on one connection and on all.
    `reset_*` counts calls that the client gave up before they were answered, and stream errors it provoked.
    `overhead_*` counts frames that carry no work: PING, SETTINGS, PRIORITY, empty DATA, small window updates.
    Both are budgets: `burst` at once, `rate` added each second.
    `min_body_rate` (bytes a second) is asked of a message on its way after `body_grace_seconds`, and of an
    answer waiting for the client's flow-control window over every `stall_seconds`; a streaming call's
    answers may wait `stream_stall_seconds` without any movement.
    """

    max_connections: int = 10_000
    max_streams: int = 1_000
    max_message_bytes: int = 64 * MIB
    max_frame_bytes: int = 1 * MIB
    stream_window_bytes: int = 16 * MIB
    connection_window_bytes: int = 64 * MIB
    max_buffered_bytes: int = 256 * MIB
    max_total_buffered_bytes: int = 1024 * MIB
    max_header_list_bytes: int = 16 * KIB
    max_header_fields: int = 128
    max_header_block_bytes: int = 32 * KIB
    max_continuations: int = 16
    reset_burst: int = 2_000
    reset_rate: int = 200
    overhead_burst: int = 2_000
    overhead_rate: int = 500
    handshake_seconds: float = 5.0
    header_seconds: float = 5.0
    idle_seconds: float = 300.0
    body_grace_seconds: float = 5.0
    min_body_rate: int = 8 * KIB
    stall_seconds: float = 10.0
    stream_stall_seconds: float = 300.0
    linger_seconds: float = 1.0
    sweep_seconds: float = 0.5

    def __post_init__(self) -> None:
        self._within("max_message_bytes", 1, MAX_WINDOW)
        self._within("max_frame_bytes", MIN_FRAME, MAX_FRAME)
        self._within("stream_window_bytes", DEFAULT_WINDOW, MAX_WINDOW)
        self._within("connection_window_bytes", DEFAULT_WINDOW, MAX_WINDOW)
        self._within("max_header_block_bytes", 1, MAX_FRAME)
        for name in ("max_connections", "max_streams", "max_header_list_bytes", "max_header_fields"):
            self._within(name, 1, 2**32 - 1)
        for name in ("max_buffered_bytes", "max_total_buffered_bytes"):
            self._within(name, self.max_message_bytes, 2**63)

    def _within(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise ValueError(f"{name}: expected {low} to {high}; got {value}")
