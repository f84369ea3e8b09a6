"""What one client may cost before a codec sees its request."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of the HTTP door: durations in seconds, sizes in bytes. Raises ValueError where one is not positive.

    Times are checked by one sweep over all connections every `sweep_seconds`, so each is kept to within that.
    """

    #: From the first byte of a head (or the start of the connection) to its end; then 408.
    header_seconds: float = 5.0
    #: The request line and all fields with their line ends; then 431.
    header_bytes: int = 16_384
    #: How many fields a head may have; then 431.
    header_count: int = 100
    #: The request target as sent; then 414.
    target_bytes: int = 8_192
    #: A body as sent, and again once decompressed; then 413.
    body_bytes: int = 64 * 1024 * 1024
    #: The window in which a body has to make progress: less than `body_bytes_per_second` over it is 408.
    body_window_seconds: float = 5.0
    body_bytes_per_second: float = 8_192.0
    #: All bodies together that are only partly there; then 503.
    bodies_bytes: int = 1024 * 1024 * 1024
    #: Chunks in one body, and one chunk's extension; then 413 and 400.
    chunk_count: int = 65_536
    chunk_extension_bytes: int = 256
    #: All trailer fields of one body; then 431.
    trailer_bytes: int = 4_096
    #: A compressed body may grow to `inflate_free_bytes` whatever its size, and beyond that by this factor; then 413.
    inflate_factor: int = 200
    inflate_free_bytes: int = 4 * 1024 * 1024
    #: Nothing asked for and nothing owed on a connection.
    idle_seconds: float = 75.0
    #: Open connections; then 503. From three quarters of it on, idle ones go after `header_seconds`.
    connections: int = 10_000
    #: Requests of one connection that are being answered at the same time; reading waits beyond it.
    pipelined: int = 64
    #: Unsent answers of one connection beyond which nothing more is read from it.
    write_buffer_bytes: int = 256 * 1024
    #: The window in which a client has to take something of what it is owed, at `write_bytes_per_second` or more.
    write_window_seconds: float = 10.0
    write_bytes_per_second: float = 4_096.0
    #: After a refusal, how long and how much of the rest is read and thrown away so that the refusal arrives.
    linger_seconds: float = 2.0
    linger_bytes: int = 16 * 1024 * 1024
    #: While draining, how long a connection that has just been used is kept for one more request.
    drain_idle_seconds: float = 1.0
    #: Answers of this size are compressed where the client asks for it; larger ones would hold up the event loop.
    compress_from_bytes: int = 4_096
    compress_to_bytes: int = 256 * 1024
    #: Distinct request heads whose reading is remembered, and how large one may be.
    remembered_heads: int = 1_024
    remembered_head_bytes: int = 2_048
    sweep_seconds: float = 0.5

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not value > 0:
                raise ValueError(f"{each.name}: expected a positive number, got {value!r}")
