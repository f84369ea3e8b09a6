"""Sends a case as it is written, byte for byte, and takes the answer as it comes."""

from __future__ import annotations

import http.client
import socket
from typing import NamedTuple

import grpc

from .case import Case
from .servers import Running

SECONDS = 8.0


class Answer(NamedTuple):
    """What came back: an HTTP answer, or a gRPC code with its message bytes. `failure` says that none came."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    code: str = ""
    details: str = ""
    failure: str = ""


def send(case: Case, server: Running) -> Answer:
    """One exchange on a connection of its own."""
    return _send_grpc(case, server.grpc_port) if case.door == "grpc" else _send_http(case, server.http_port)


def request_bytes(case: Case) -> bytes:
    """The request as it goes on the wire. Content-Length is added unless the case brings its own framing."""
    lines = [f"{case.method} {case.target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{key}: {value}" for key, value in case.headers]
    if case.framing and (case.body or case.method == "POST"):
        lines.append(f"Content-Length: {len(case.body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + case.body


def _send_http(case: Case, port: int) -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        try:
            connection.sendall(request_bytes(case))
            response = http.client.HTTPResponse(connection, method=case.method)
            response.begin()
            body = response.read()
        except TimeoutError:
            return Answer(failure="no answer in time")
        except (OSError, http.client.HTTPException) as problem:
            return Answer(failure=f"closed: {type(problem).__name__}")
    return Answer(response.status, tuple(response.getheaders()), body)


def _send_grpc(case: Case, port: int) -> Answer:
    compression = {"": None, "gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[case.compression]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(case.target, request_serializer=bytes, response_deserializer=bytes)
        try:
            body = call(case.body, timeout=SECONDS, compression=compression, metadata=case.headers)
        except grpc.RpcError as problem:
            return Answer(code=problem.code().name, details=problem.details() or "")
    return Answer(code="OK", body=body)
