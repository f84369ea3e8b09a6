"""The HTTP/1.1 door: sockets and framing on one side, codecs and servables on the other."""

from turnout.entrypoints.http.door import HttpDoor
from turnout.entrypoints.http.limits import HttpLimits

__all__ = ["HttpDoor", "HttpLimits"]
