"""Our loop over header blocks against hpack's, and the memory of equal blocks against no memory at all."""

from __future__ import annotations

import hpack
import pytest
from hpack.hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from turnout.entrypoints.grpc.frames import ConnectionFault, ErrorCode
from turnout.entrypoints.grpc.header_blocks import NO_TABLE, TABLE_BYTES, HeaderDecoder, literal

names = st.sampled_from([b":path", b":method", b"te", b"grpc-timeout", b"x-a", b"x-b", b"x-request-id", b"n" * 300])
values = st.sampled_from([b"POST", b"/a/b", b"trailers", b"", b"1S", b"v" * 2000]) | st.binary(max_size=40)
lists = st.lists(st.tuples(names, values, st.booleans()), max_size=8)


def blocks_of(plan: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> list[bytes]:
    encoder = Encoder()
    out = []
    for wanted, huffman, size in plan:
        if size is not None:
            encoder.header_table_size = size
        out.append(encoder.encode(wanted, huffman=huffman))
    return out


@given(st.lists(st.tuples(lists, st.booleans(), st.none() | st.integers(0, TABLE_BYTES)), max_size=8))
def test_the_same_fields_as_hpack(plan: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]]) -> None:
    ours, theirs = HeaderDecoder(2**20, 1000), Decoder(2**20)
    for block in blocks_of(plan):
        wanted = [tuple(field) for field in theirs.decode(block, raw=True)]
        assert ours.decode(block).fields == wanted


@given(st.lists(st.tuples(lists, st.booleans(), st.none()), min_size=1, max_size=6), st.data())
def test_remembering_blocks_is_safe(
    plan: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]], data: st.DataObject
) -> None:
    """The rule the door follows: remember what changed nothing, forget all when something changed.

    Blocks are repeated in any order, so that one often means other fields the second time: with the memory and
    without it, the fields must be the same ones, and the tables too.
    """
    blocks = blocks_of(plan)
    order = data.draw(st.lists(st.sampled_from(blocks), max_size=30))
    plain, careful = HeaderDecoder(2**20, 1000), HeaderDecoder(2**20, 1000)
    memo: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for block in order:
        try:
            wanted = plain.decode(block).fields
        except ConnectionFault:
            with pytest.raises(ConnectionFault):
                careful.decode(block)
            assert block not in memo
            break
        if block in memo:
            got = memo[block]
        else:
            got = careful.decode(block).fields
            if careful.changed:
                memo.clear()
            else:
                memo[block] = got
        assert got == wanted
        assert plain._table.dynamic_entries == careful._table.dynamic_entries
        assert plain._table.maxsize == careful._table.maxsize


@given(st.binary(max_size=200))
def test_random_bytes_are_judged_as_hpack_judges_them(block: bytes) -> None:
    try:
        wanted = [tuple(field) for field in Decoder(2**20).decode(block, raw=True)]
    except hpack.HPACKError:
        with pytest.raises(ConnectionFault) as fault:
            HeaderDecoder(2**20, 1000).decode(block)
        assert fault.value.code == ErrorCode.COMPRESSION_ERROR
    else:
        try:
            assert HeaderDecoder(2**20, 1000).decode(block).fields == wanted
        except ConnectionFault as fault:  # hpack takes longer integers, which no peer needs
            assert "integer" in str(fault)  # noqa: PT017


@given(st.lists(st.tuples(names, values), max_size=8))
def test_what_is_written_is_read_by_hpack(wanted: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(2**20)
    decoder.max_allowed_table_size = 0  # a peer that allows no table at all
    assert [tuple(field) for field in decoder.decode(NO_TABLE + literal(wanted), raw=True)] == wanted
    assert not decoder.header_table.dynamic_entries


def test_bounds_end_the_list_and_then_the_connection() -> None:
    decoder = HeaderDecoder(1000, 10)
    few = decoder.decode(literal([(b"a", b"b" * 50)] * 5))
    assert (len(few.fields), few.too_large) == (5, False)
    many = decoder.decode(literal([(b"a", b"b")] * 11))
    assert (len(many.fields), many.too_large) == (10, True)
    large = decoder.decode(literal([(b"a", b"b" * 1000)]))
    assert (large.fields, large.too_large) == ([], True)
    for bomb in (literal([(b"a", b"b")] * 41), literal([(b"a", b"b" * 4000)])):
        with pytest.raises(ConnectionFault) as fault:
            decoder.decode(bomb)
        assert fault.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_bomb_out_of_the_table_is_stopped_early() -> None:
    """One large entry, then one byte for each repetition: 16 KiB of block would be 64 MiB of fields."""
    decoder = HeaderDecoder(16_384, 128)
    bomb = b"\x40" + literal([(b"a", b"x" * 4000)])[1:] + b"\xbe" * 16_000
    with pytest.raises(ConnectionFault) as fault:
        decoder.decode(bomb)
    assert fault.value.code == ErrorCode.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # beyond the table
        b"\xff\xff\xff\xff\xff\xff\x01",  # an endless integer
        b"\x40\x05ab",  # a name that is cut off
        b"\x40",  # nothing after the first byte
        b"\x00\x81\xff\x00",  # Huffman padding of a whole byte and more
        b"\x82\x20",  # a size update after a field
        b"\x3f\xe2\x1f",  # a size update over the limit
    ],
)
def test_broken_blocks(block: bytes) -> None:
    with pytest.raises(ConnectionFault) as fault:
        HeaderDecoder(1000, 10).decode(block)
    assert fault.value.code == ErrorCode.COMPRESSION_ERROR
