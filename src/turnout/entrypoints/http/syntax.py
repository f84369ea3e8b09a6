"""The strict grammar of a request head, and the first thing that is wrong with one that does not follow it.

A fault is found by reading line after line from the start, and a line is judged when it is complete. So the
same fault is found whether the head comes at once or byte by byte, and a bad one is refused before it ends.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[\t \x21-\x7e\x80-\xff]"
_TARGET = rb"[!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]"

#: Possessive throughout: no input makes these go back.
HEAD = re.compile(
    rb"(" + _TOKEN + rb"{1,32}) (" + _TARGET + rb"++) HTTP/1\.([01])\r\n"
    rb"(?:" + _TOKEN + rb"++:" + _VALUE + rb"*+\r\n)*+\r\n"
)
_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}) (" + _TARGET + rb"++) HTTP/(\d)\.(\d)")
_FIELD = re.compile(_TOKEN + rb"++:" + _VALUE + rb"*+")
TRAILER = re.compile(rb"(" + _TOKEN + rb"++):" + _VALUE + rb"*+\r\n")

_SHOWN = 60


class Refusal(Exception):
    """A head or a framing that is refused with `status`; the text is meant for the caller. The connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class HeadBounds(NamedTuple):
    """How large a head may be: bytes in all, fields, bytes of the request target."""

    head_bytes: int
    fields: int
    target_bytes: int


def shown(raw: bytes) -> str:
    """A piece of what came, short and safe to print."""
    text = raw[:_SHOWN].decode("latin-1").encode("unicode_escape").decode("ascii")
    return repr(text + ("..." if len(raw) > _SHOWN else ""))


def first_fault(head: bytes, bounds: HeadBounds) -> Refusal | None:
    """The first fault in the complete lines of `head`, which may be a whole head or the start of one."""
    within = head[: bounds.head_bytes]
    at = 0
    number = -1
    while (end := within.find(b"\n", at)) >= 0:
        line = within[at:end]
        at = end + 1
        if not line.endswith(b"\r"):
            return Refusal(400, f"line {number + 2} of the request head ends in a bare LF; expected CRLF")
        line = line[:-1]
        fault = _request_line_fault(line, bounds) if number < 0 else _field_fault(line)
        if fault is not None:
            return fault
        number += 1
        if not line:
            break
        if number > bounds.fields:
            return Refusal(431, f"the request head has too many fields; expected at most {bounds.fields}")
    else:
        if len(head) >= bounds.head_bytes:
            if at == 0:
                return _target_too_long(bounds)
            return Refusal(431, f"the request head is too large; expected at most {bounds.head_bytes} bytes")
    return None


def _target_too_long(bounds: HeadBounds) -> Refusal:
    return Refusal(414, f"the request target is too long; expected at most {bounds.target_bytes} bytes")


def _request_line_fault(line: bytes, bounds: HeadBounds) -> Refusal | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return Refusal(400, f"malformed request line; expected 'METHOD /path HTTP/1.1', got {shown(line)}")
    if match[3] != b"1" or match[4] not in (b"0", b"1"):
        version = f"{match[3].decode()}.{match[4].decode()}"
        return Refusal(505, f"unsupported protocol version; expected HTTP/1.1 or HTTP/1.0, got HTTP/{version}")
    if len(match[2]) > bounds.target_bytes:
        return _target_too_long(bounds)
    return None


def _field_fault(line: bytes) -> Refusal | None:
    if not line or _FIELD.fullmatch(line):
        return None
    if line[:1] in b" \t":
        return Refusal(400, f"a header line begins with white space (folded headers are not read), got {shown(line)}")
    name, colon, _value = line.partition(b":")
    if not colon:
        return Refusal(400, f"a header line has no colon; expected 'name: value', got {shown(line)}")
    if name.endswith((b" ", b"\t")):
        return Refusal(400, f"there is white space before the colon of header {shown(name)}")
    if _FIELD.fullmatch(name + b":") is None:
        return Refusal(400, f"a header name has a character that is not allowed, got {shown(name)}")
    return Refusal(400, f"the value of header {shown(name)} has a control character")
