"""Listening sockets, made before anything serves: a port that is taken is known at once."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from functools import partial

BACKLOG = 4096
#: Listening sockets of one router: HTTP and gRPC.
Doors = tuple[socket.socket, socket.socket]


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens on host and port (0 picks a free one); `shared` lets others take the same port too.

    Raises OSError with a sentence for the operator.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, number)
    except OSError as problem:
        raise OSError(problem.errno, f"cannot listen on {host}:{port} ({problem.strerror})") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it: an answer must not wait for the client's acknowledgement of the last one.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as problem:
        sock.close()
        reason = os.strerror(problem.errno) if problem.errno else str(problem)
        other = "another address, of this machine" if problem.errno == errno.EADDRNOTAVAIL else "another port"
        raise OSError(problem.errno, f"cannot listen on {host}:{port} ({reason}); choose {other}") from None
    return sock


def listen_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one port, between which the kernel divides the connections. Raises OSError."""
    if count > 1:  # SO_REUSEPORT alone would share the port with any other server of the same user
        with listen(host, port) as alone:
            port = alone.getsockname()[1]
    first = listen(host, port, shared=count > 1)
    taken = first.getsockname()[1]
    return [first, *(listen(host, taken, shared=True) for _ in range(count - 1))]


def doors_of(host: str, ports: tuple[int, int], names: Sequence[str], left: Mapping[str, Doors]) -> list[Doors]:
    """For each router by name. left: those that are there already; then the others are made of the same ports."""
    if not left:
        http, grpc = (listen_shared(host, port, len(names)) for port in ports)
        return list(zip(http, grpc, strict=True))
    again = partial(listen, host, shared=True)
    return [left.get(name) or (again(ports[0]), again(ports[1])) for name in names]
