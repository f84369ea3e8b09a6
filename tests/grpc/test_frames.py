"""The frame reader against hyperframe, on random frames cut into random segments."""

from __future__ import annotations

import pytest
from hyperframe import frame as hf
from hypothesis import given
from hypothesis import strategies as st

from turnout.entrypoints.grpc import frames
from turnout.entrypoints.grpc.frames import ConnectionFault, ErrorCode, FrameReader

MAX = 20_000
raw_frames = st.tuples(
    st.integers(0, 12), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=300) | st.just(b"x" * MAX)
)


def read_in(segments: list[bytes], *, views: bool = False) -> list[frames.Frame]:
    """What a reader gives for the segments, DATA pieces joined by means of `left`."""
    reader = FrameReader(MAX, MAX)
    out: list[frames.Frame] = []
    open_piece = False
    for segment in segments:
        for kind, flags, stream_id, payload in reader.read(memoryview(segment) if views else segment):
            if open_piece:
                body = out.pop()[3]
                assert kind == frames.DATA
                out.append((kind, flags, stream_id, bytes(body) + bytes(payload)))
            else:
                out.append((kind, flags, stream_id, bytes(payload)))
            open_piece = reader.left > 0
    return out


@given(st.lists(raw_frames, max_size=6), st.data())
def test_any_segments_give_the_same_frames(wanted: list[tuple[int, int, int, bytes]], data: st.DataObject) -> None:
    sent = b"".join(frames.frame(kind, flags, stream_id, payload) for kind, flags, stream_id, payload in wanted)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    segments = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    expected = [(kind, flags, stream_id, payload) for kind, flags, stream_id, payload in wanted]
    assert read_in([sent]) == expected
    got = read_in(segments, views=data.draw(st.booleans()))
    assert [f[:1] + f[2:] for f in got] == [f[:1] + f[2:] for f in expected]
    assert [f[1] for f in got] == [f[1] for f in expected]


@given(st.lists(raw_frames, min_size=1, max_size=6))
def test_frames_are_hyperframes(wanted: list[tuple[int, int, int, bytes]]) -> None:
    """hyperframe reads the same header out of what `frame` writes."""
    for kind, flags, stream_id, payload in wanted:
        sent = frames.frame(kind, flags, stream_id, payload)
        try:
            parsed, length = hf.Frame.parse_frame_header(memoryview(sent[:9]))
        except (hf.InvalidDataError, hf.InvalidFrameError):
            continue  # a type that belongs to the other kind of stream: the connection's matter, not the reader's
        (ours,) = FrameReader(MAX, MAX).read(sent)
        assert length == len(ours[3])
        assert parsed.stream_id == ours[2]
        assert getattr(parsed, "type", None) in (ours[0], None)


def test_what_is_written_is_what_hyperframe_writes() -> None:
    setting = frames.Setting
    rst, goaway, update, ping = hf.RstStreamFrame(5), hf.GoAwayFrame(0), hf.WindowUpdateFrame(7), hf.PingFrame(0)
    rst.error_code, update.window_increment, ping.opaque_data = 8, 2**31 - 1, b"12345678"
    goaway.last_stream_id, goaway.error_code, goaway.additional_data = 9, 11, b"calm"
    settings = hf.SettingsFrame(0)
    settings.settings = {3: 100, 4: 2**20}
    ack, body = hf.SettingsFrame(0), hf.DataFrame(3, b"abc")
    ack.flags.add("ACK")
    assert frames.rst_stream(5, ErrorCode.CANCEL) == rst.serialize()
    assert frames.goaway(9, ErrorCode.ENHANCE_YOUR_CALM, "calm") == goaway.serialize()
    assert frames.window_update(7, 2**31 - 1) == update.serialize()
    assert frames.frame(frames.PING, 0, 0, b"12345678") == ping.serialize()
    assert frames.settings({setting.MAX_CONCURRENT_STREAMS: 100, setting.INITIAL_WINDOW_SIZE: 2**20}) == (
        settings.serialize()
    )
    assert ack.serialize() == frames.SETTINGS_ACK
    assert frames.data_header(3, 3) + b"abc" == body.serialize()


@given(st.binary(max_size=300), st.integers(0, 255))
def test_padding(body: bytes, padding: int) -> None:
    padded = hf.DataFrame(1, body, pad_length=padding)
    padded.flags.add("PADDED")
    ((_kind, flags, _stream, payload),) = FrameReader(MAX, MAX).read(padded.serialize())
    assert flags & frames.PADDED
    assert frames.unpad(payload) == body


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x05abcd", b"\xff" * 200])
def test_more_padding_than_payload(payload: bytes) -> None:
    with pytest.raises(ConnectionFault):
        frames.unpad(payload)


def test_oversized_frames_are_refused_by_their_header_alone() -> None:
    for kind, length, code in (
        (frames.DATA, MAX + 1, ErrorCode.FRAME_SIZE_ERROR),
        (frames.HEADERS, 2**24 - 1, ErrorCode.FRAME_SIZE_ERROR),
    ):
        with pytest.raises(ConnectionFault) as fault:
            list(FrameReader(MAX, MAX).read((length << 8 | kind).to_bytes(4, "big") + b"\0\0\0\0\1"))
        assert fault.value.code == code
    with pytest.raises(ConnectionFault) as fault:
        list(FrameReader(2**20, MAX).read((2**19 << 8 | frames.PING).to_bytes(4, "big") + b"\0\0\0\0\1"))
    assert fault.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_a_frame_in_single_bytes_costs_no_more_than_its_size() -> None:
    """What is kept grows by what came; nothing is copied over and over."""
    reader = FrameReader(MAX, MAX)
    sent = frames.frame(frames.HEADERS, 0, 1, b"x" * 15_000)
    assert [got for at in range(len(sent)) for got in reader.read(sent[at : at + 1])] == [(1, 0, 1, b"x" * 15_000)]
    assert reader.cuts <= 2
    assert not reader.midway
