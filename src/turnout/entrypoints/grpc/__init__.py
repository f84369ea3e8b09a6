"""The gRPC door: a small HTTP/2 server for unary and streaming calls, in the clear, on one port."""

from turnout.entrypoints.grpc.door import GrpcDoor
from turnout.entrypoints.grpc.limits import GrpcLimits

__all__ = ["GrpcDoor", "GrpcLimits"]
