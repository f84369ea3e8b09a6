"""HPACK (RFC 7541): header blocks to fields, and the literal form in which answers are written.

The tables and the Huffman code are those of `hpack`; the loop over a block is our own because it must know
whether the dynamic table changed, bound the list while it is read, and cost little. This is the only file
that speaks to `hpack`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from hpack import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from turnout.entrypoints.grpc.frames import ConnectionFault, ErrorCode

Field = tuple[bytes, bytes]

_STATIC: tuple[Field, ...] = HeaderTable.STATIC_TABLE
_STATIC_SIZE = len(_STATIC)
#: The size of the dynamic table that peers may use (bytes): the protocol's default, so it is not announced.
TABLE_BYTES = 4096
#: What an entry counts beyond its name and value (RFC 7541 section 4.1).
ENTRY_OVERHEAD = 32
#: A list this many times over its bound is not read to its end: the connection is closed.
_HARD = 4
#: Tells the peer that no dynamic table is used here. Sent once, at the start of the first block.
NO_TABLE = b"\x20"


class Block:
    """The fields of one header block. `too_large` says that the list was over a bound and was cut."""

    __slots__ = ("fields", "too_large")

    def __init__(self, fields: list[Field], too_large: bool) -> None:
        self.fields = fields
        self.too_large = too_large


class HeaderDecoder:
    """Decodes the header blocks of one connection, in the order they came.

    `changed` says whether the last block changed the dynamic table. If it did not, the same bytes mean the
    same fields until a block comes that does: an HPACK block's meaning depends on nothing but its bytes and
    the table.
    """

    __slots__ = ("_max_bytes", "_max_fields", "_table", "changed")

    def __init__(self, max_bytes: int, max_fields: int) -> None:
        self._table = HeaderTable()
        self._max_bytes = max_bytes
        self._max_fields = max_fields
        self.changed = False

    def decode(self, data: bytes) -> Block:
        """The fields of a block. Raises ConnectionFault: after an error the table is not the peer's any more."""
        try:
            return self._decode(data)
        except IndexError:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the header block is cut off") from None
        except HPACKDecodingError:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a wrong Huffman code in the header block") from None

    def _decode(self, data: bytes) -> Block:
        self.changed = False
        fields: list[Field] = []
        at, end, size, count = 0, len(data), 0, 0
        max_bytes, max_fields = self._max_bytes, self._max_fields
        while at < end:
            octet = data[at]
            if octet & 0x80:
                index = octet & 0x7F
                at += 1
                if index == 0x7F:
                    index, at = _integer(data, at, index)
                field = self._entry(index)
            elif octet & 0xE0 == 0x20:
                if count:
                    raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a table size update after a header field")
                at = self._resize(data, at)
                continue
            else:
                field, at = self._literal(data, at, 0x3F if octet & 0x40 else 0x0F)
                if octet & 0x40:
                    self._table.add(*field)
                    self.changed = True
            count += 1
            size += ENTRY_OVERHEAD + len(field[0]) + len(field[1])
            if size <= max_bytes and count <= max_fields:
                fields.append(field)
            elif size > _HARD * max_bytes or count > _HARD * max_fields:
                raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header list is far too large")
        return Block(fields, size > max_bytes or count > max_fields)

    def _entry(self, index: int) -> Field:
        if 0 < index <= _STATIC_SIZE:
            return _STATIC[index - 1]
        entries = self._table.dynamic_entries
        if _STATIC_SIZE < index <= _STATIC_SIZE + len(entries):
            return entries[index - _STATIC_SIZE - 1]
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"there is no header table entry {index}")

    def _literal(self, data: bytes, at: int, mask: int) -> tuple[Field, int]:
        index = data[at] & mask
        at += 1
        if index:
            if index == mask:
                index, at = _integer(data, at, index)
            name = self._entry(index)[0]
        else:
            name, at = _string(data, at)
        value, at = _string(data, at)
        return (name, value), at

    def _resize(self, data: bytes, at: int) -> int:
        size = data[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = _integer(data, at, size)
        if size > TABLE_BYTES:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"a header table of {size} bytes; at most {TABLE_BYTES}")
        self._table.maxsize = size
        self.changed = True
        return at


def _integer(data: bytes, at: int, start: int) -> tuple[int, int]:
    value, shift = start, 0
    while True:
        octet = data[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > 21:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header integer is too long")


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    octet = data[at]
    length = octet & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(data, at, length)
    stop = at + length
    if stop > len(data):
        raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "the header block is cut off")
    text = data[at:stop]
    if octet & 0x80:
        text = _short_huffman(text) if length <= 64 else decode_huffman(text)
    return text, stop


_short_huffman = lru_cache(2048)(decode_huffman)


def literal(fields: Iterable[Field]) -> bytes:
    """A block of literal fields that touches no table, so it means the same on every connection."""
    return b"".join(b"\x00" + _length(name) + name + _length(value) + value for name, value in fields)


def _length(text: bytes) -> bytes:
    value = len(text)
    if value < 0x7F:
        return bytes((value,))
    value -= 0x7F
    out = bytearray((0x7F,))
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
