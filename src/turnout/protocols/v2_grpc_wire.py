"""The little of protobuf's wire form that the ModelInfer codec reads and writes by itself.

A message is split into its head and its tensors without being parsed: tensors then are views into the
message instead of two copies, and the head, which is the same from request to request, needs parsing once.
"""

from __future__ import annotations

from typing import NamedTuple

# Tags: field number * 8 + 2 (length-delimited).
ID = 3 << 3 | 2
RAW_INPUT = 7 << 3 | 2
_FIELDS = frozenset(number << 3 | 2 for number in range(1, 8))
_RAW_OUTPUT = bytes((6 << 3 | 2,))

_MORE = 0x80  # the bit that says that a varint goes on
_LONGEST_LENGTH = 5  # bytes of a varint that holds a length below 2 GiB


class Split(NamedTuple):
    """A ModelInferRequest in pieces: all fields but `id` and `raw_input_contents`, and these two.

    `raws` are start and stop offsets into the message.
    """

    head: bytes
    id: str
    raws: list[tuple[int, int]]


def split(message: bytes | memoryview) -> Split | None:
    """The pieces of a serialized ModelInferRequest; None where it is not written as all writers do.

    Fields have to come in rising order and be length-delimited, and the id has to be there at most once.
    For anything else, malformed messages too, None sends the caller to the full parser.
    """
    at, end = 0, len(message)
    last = 0
    id_from = id_to = 0
    head_to = 0
    request_id = ""
    raws: list[tuple[int, int]] = []
    try:
        while at < end:
            tag = message[at]
            if tag < last or tag not in _FIELDS:
                return None
            body = at + 2
            length = message[at + 1]
            if length >= _MORE:
                body, length = _long(message, at + 1)
            stop = body + length
            if tag == RAW_INPUT:
                raws.append((body, stop))
            elif tag == ID:
                if last == ID:
                    return None
                id_from, id_to = at, stop
                request_id = str(message[body:stop], "utf-8")
            else:
                head_to = stop
            last = tag
            at = stop
    except (IndexError, ValueError):  # cut off, or an id that is no UTF-8
        return None
    if at != end:
        return None
    if id_to:
        return Split(bytes(message[:id_from]) + bytes(message[id_to:head_to]), request_id, raws)
    return Split(bytes(message[:head_to]), "", raws)


def _long(message: bytes | memoryview, at: int) -> tuple[int, int]:
    """Where the content begins of a field whose length stands at `at` in several bytes, and that length."""
    length = message[at] & (_MORE - 1)
    for place in range(1, _LONGEST_LENGTH):
        byte = message[at + place]
        length |= (byte & (_MORE - 1)) << 7 * place
        if byte < _MORE:
            return at + place + 1, length
    raise ValueError("the length is no length")


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it; negative ones as int64."""
    if 0 <= number < _MORE:
        return bytes((number,))
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= _MORE:
        out.append(number & (_MORE - 1) | _MORE)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field: tag, length and content."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def text(number: int, value: str) -> bytes:
    """A string field; nothing at all where it is empty, as proto3 has it."""
    return field(number, value.encode()) if value else b""


def raw_output(size: int) -> bytes:
    """What stands before the bytes of one entry of `raw_output_contents`."""
    return _RAW_OUTPUT + varint(size)
