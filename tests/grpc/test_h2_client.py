"""The h2 library as client: every byte the door sends must fit into its state machine."""

from __future__ import annotations

import random
import socket
import zlib
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import pytest
from grpc_door import CHAT, COUNT, ECHO, PARTS, UPPER, DoorThread
from h2.settings import SettingCodes, Settings
from wire import fields, message

CONFIG = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")


class Client:
    """Collects what comes on each stream. `drive` reads until a condition holds."""

    def __init__(self, port: int, **initial: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.h2 = h2.connection.H2Connection(CONFIG)
        values = {SettingCodes[name.upper()]: value for name, value in initial.items()}
        self.h2.local_settings = Settings(client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, **values})
        self.h2.max_inbound_frame_size = self.h2.local_settings.max_frame_size
        self.h2.decoder.max_allowed_table_size = self.h2.local_settings.header_table_size
        self.h2.initiate_connection()
        self.bodies: dict[int, bytearray] = {}
        self.heads: dict[int, dict[str, str]] = {}
        self.trailers: dict[int, dict[str, str]] = {}
        self.done: set[int] = set()
        self.events: list[Any] = []
        self.acknowledge = True
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def begin(self, path: str = ECHO, *, end: bool = False, **changes: str | None) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields(path, **changes), end_stream=end)
        self.bodies[stream] = bytearray()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = True, pad: int | None = None) -> None:
        """All of it, as the windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size) - (pad or 0) - 1
            if room <= 0:
                self.flush()
                self.step()
                continue
            part, data = data[:room], data[room:]
            self.h2.send_data(stream, part, end_stream=end and not data, pad_length=pad)
        self.flush()

    def call(self, body: bytes, path: str = ECHO, **changes: str | None) -> bytes:
        stream = self.begin(path, **changes)
        self.send(stream, message(body))
        return self.finish(stream)

    def finish(self, stream: int) -> bytes:
        while stream not in self.done:
            self.step()
        return bytes(self.bodies[stream])

    def step(self) -> None:
        data = self.socket.recv(1 << 16)
        assert data, "closed"
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.ResponseReceived):
                self.heads[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                if self.acknowledge and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                self.done.add(event.stream_id)
        self.flush()


def test_calls_one_after_another(door: DoorThread) -> None:
    with Client(door.port) as client:
        for n in range(50):
            assert client.call(b"%d" % n) == message(b"%d" % n)
            stream = 2 * n + 1
            assert client.heads[stream][":status"] == "200"
            assert client.heads[stream]["content-type"] == "application/grpc"
            assert client.trailers[stream] == {"grpc-status": "0"}
        assert client.call(b"x", UPPER) == message(b"X")
        assert client.call(b"", "/a/b") == b""


def test_settings_are_announced_and_acknowledged(door: DoorThread) -> None:
    with Client(door.port) as client:
        client.call(b"x")
        remote = client.h2.remote_settings
        assert remote.max_concurrent_streams == door.limits.max_streams
        assert remote.initial_window_size == door.limits.stream_window_bytes
        assert remote.max_frame_size == door.limits.max_frame_bytes
        assert remote.max_header_list_size == door.limits.max_header_list_bytes
        assert any(isinstance(event, h2.events.SettingsAcknowledged) for event in client.events)


@pytest.mark.parametrize("window", [1, 100, 16_384, 65_535, 2**20])
@pytest.mark.parametrize("frame_size", [16_384, 100_000])
def test_large_answers_through_any_window(door: DoorThread, window: int, frame_size: int) -> None:
    size = 50 if window == 1 else 200_000 if window > 100 else 3_000
    with Client(door.port, initial_window_size=window, max_frame_size=frame_size) as client:
        body = random.Random(1).randbytes(size)
        assert client.call(body, PARTS) == message(body)
        assert client.call(body) == message(body)


def test_many_streams_share_a_small_window(door: DoorThread) -> None:
    with Client(door.port, initial_window_size=5_000) as client:
        streams = [client.begin(PARTS) for _ in range(30)]
        bodies = [random.Random(n).randbytes(20_000 + n) for n in range(30)]
        for stream, body in zip(streams, bodies, strict=True):
            client.send(stream, message(body))
        for stream, body in zip(streams, bodies, strict=True):
            assert client.finish(stream) == message(body)


def test_the_window_changes_in_the_middle(door: DoorThread) -> None:
    """It shrinks below what is on its way, so that it is negative for a time, and grows again."""
    with Client(door.port, initial_window_size=30_000) as client:
        client.acknowledge = False
        stream = client.begin(PARTS)
        client.send(stream, message(b"x" * 100_000))
        while len(client.bodies[stream]) < 20_000:
            client.step()
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1_000})
        client.flush()
        while len(client.bodies[stream]) < 30_000:
            client.step()
        client.h2.ping(b"settled?")
        client.flush()
        while not any(isinstance(event, h2.events.PingAckReceived) for event in client.events):
            client.step()
        assert len(client.bodies[stream]) == 30_000
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 60_000})
        client.h2.increment_flow_control_window(100_000)
        client.flush()
        while len(client.bodies[stream]) < 60_000:
            client.step()
        client.h2.increment_flow_control_window(100_000, stream)
        client.flush()
        assert client.finish(stream) == message(b"x" * 100_000)


def test_a_smaller_frame_size_and_header_table_in_the_middle(door: DoorThread) -> None:
    with Client(door.port, max_frame_size=200_000, initial_window_size=2**20) as client:
        assert client.call(b"x" * 150_000, PARTS) == message(b"x" * 150_000)
        client.h2.update_settings({SettingCodes.MAX_FRAME_SIZE: 16_384, SettingCodes.HEADER_TABLE_SIZE: 0})
        assert client.call(b"x" * 60_000, PARTS) == message(b"x" * 60_000)
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 4096})
        for _ in range(3):
            assert client.call(b"x" * 60_000, PARTS) == message(b"x" * 60_000)


def test_a_small_header_table_from_the_start(door: DoorThread) -> None:
    with Client(door.port, header_table_size=100) as client:
        for _ in range(3):
            assert client.call(b"x") == message(b"x")


def test_padding_priority_trailers_and_small_pieces(door: DoorThread) -> None:
    with Client(door.port) as client:
        stream = client.begin()
        client.send(stream, message(b"padded"), pad=100)
        assert client.finish(stream) == message(b"padded")
        stream = client.begin()
        body = message(b"in pieces")
        for at in range(len(body)):
            client.send(stream, body[at : at + 1], end=False, pad=at)
        client.h2.prioritize(stream, weight=10, depends_on=0)
        client.h2.send_headers(stream, [("x-trailer", "y")], end_stream=True)
        client.flush()
        assert client.finish(stream) == body
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, fields(), priority_weight=5, priority_exclusive=True)
        client.bodies[stream] = bytearray()
        client.send(stream, message(b"priority"))
        assert client.finish(stream) == message(b"priority")


def test_a_header_block_in_several_frames(door: DoorThread) -> None:
    with Client(door.port) as client:
        client.h2.max_outbound_frame_size = 100  # of the server's announced size, h2 uses what we say here
        stream = client.begin(**{"x-request-id": "i" * 120, "x-long": "y" * 800})
        client.h2.max_outbound_frame_size = 16_384
        client.send(stream, message(b"x"))
        assert client.finish(stream) == message(b"x")
        assert door.codec.contexts[-1].id == "i" * 120


def test_streaming_through_small_windows(door: DoorThread) -> None:
    with Client(door.port, initial_window_size=1000) as client:
        stream = client.begin(COUNT)
        client.send(stream, message(b"100 300"))
        assert len(client.finish(stream)) == 100 * 305
        stream = client.begin(CHAT)
        for n in range(20):
            client.send(stream, message(b"%d" % n), end=False)
        while len(client.bodies[stream]) < 20 * 6:
            client.step()
        client.h2.end_stream(stream)
        client.flush()
        client.finish(stream)
        assert client.trailers[stream] == {"grpc-status": "0"}


def test_resets_on_both_sides(door: DoorThread) -> None:
    with Client(door.port) as client:
        for n in range(20):
            stream = client.begin()
            if n % 2:
                client.send(stream, message(b"wait:"))
            client.h2.reset_stream(stream, 8)
            client.flush()
        assert client.call(b"x") == message(b"x")
        stream = client.begin("/a/b")  # answered, and reset, before its end
        client.flush()
        client.finish(stream)
        assert client.call(b"y") == message(b"y")


def test_more_streams_than_announced_are_refused(new_door: Any) -> None:
    from turnout.entrypoints.grpc import GrpcLimits

    door = new_door(limits=GrpcLimits(max_streams=3))
    with Client(door.port) as client:
        waiting = [client.begin() for _ in range(3)]
        refused = client.begin()
        client.flush()
        client.finish(refused)
        (reset,) = [event for event in client.events if isinstance(event, h2.events.StreamReset)]
        assert (reset.stream_id, reset.error_code) == (refused, 7)
        for stream in waiting:
            client.send(stream, message(b"x"))
            assert client.finish(stream) == message(b"x")


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
@pytest.mark.parametrize("path", [PARTS, CHAT])
def test_answers_are_compressed_for_who_compresses(door: DoorThread, encoding: str, bits: int, path: str) -> None:
    """Small ones at once, large ones in a thread, tiny ones not at all."""
    with Client(door.port, initial_window_size=2**24) as client:
        client.h2.increment_flow_control_window(2**24)
        for size, packed in ((10, False), (5_000, True), (3_000_000, True)):
            body = b"abcdefgh" * (size // 8)
            stream = client.begin(path, grpc_encoding=encoding, grpc_accept_encoding=f"identity, {encoding}")
            encoder = zlib.compressobj(9, zlib.DEFLATED, bits)
            client.send(stream, message(encoder.compress(body) + encoder.flush(), 1))
            answer = client.finish(stream)
            assert client.heads[stream]["grpc-encoding"] == encoding
            assert client.trailers[stream] == {"grpc-status": "0"}
            assert answer[0] == packed
            assert (zlib.decompress(answer[5:], bits) if packed else answer[5:]) == body
