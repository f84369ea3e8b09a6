"""What a well-behaved client gets."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from running import Running, chunked, get, post

from turnout.core.errors import Code


def test_a_prediction_is_answered_and_recorded(running: Running) -> None:
    reply = running.ask(post("/predict/double", {"x": [1, 2]}, headers={"x-request-id": "r1"}))
    assert (reply.status, reply.json) == (200, {"y": [2.0, 4.0], "id": "r1"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["date"].endswith(" GMT")
    (record,) = running.observer.records
    assert (record.model, record.version, record.protocol, record.code) == ("double", "1", "tiny", Code.OK)
    assert (record.rows, record.request_id, record.peer) == (2, "r1", "127.0.0.1")
    assert record.bytes_in == len(json.dumps({"x": [1, 2]}))
    assert record.bytes_out > len(reply.body)
    assert 0 < record.decode < record.total
    assert 0 < record.encode < record.total


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/double/infer",
        "/v2/models/double/versions/1/infer",
        "/v1/models/double:predict",
        "/v1/models/double/versions/1:predict",
        "/v2/models/d%6fuble/infer",
        "/v2/models/a%2Fb/infer",
        "/v1/models/a%2fb:predict",
        "http://test/predict/double",
    ],
)
def test_names_and_versions_stand_in_the_path(running: Running, path: str) -> None:
    assert running.ask(post(path, {"x": [3]})).json == {"y": [6.0]}


@pytest.mark.parametrize(
    "path", ["/predict/..", "/predict/a%252Fb", "/v2/models/double/versions/2/infer", "/predict/None"]
)
def test_a_model_that_is_not_there_is_404(running: Running, path: str) -> None:
    reply = running.ask(post(path, {"x": [3]}))
    assert reply.status == 404
    assert "there is no" in reply.json["failure"]
    (record,) = running.observer.records
    assert (record.model, record.code) == ("", Code.NOT_FOUND) or "versions" in path


def test_get_head_and_options(running: Running) -> None:
    with running.connect() as client:
        client.send(get("/v2/models/double?a=b%20c"))
        described = client.reply()
        assert described.json == {"name": "double", "query": "a=b%20c"}
        client.send(get("/v2/models/double?a=b%20c", method="HEAD"))
        head = client.reply(head_only=True)
        assert (head.status, head.headers["content-length"]) == (200, str(len(described.body)))
        client.send(get("/predict/double", method="OPTIONS"))
        options = client.reply()
        assert (options.status, options.headers["allow"]) == (200, "OPTIONS, POST")
        client.send(get("*", method="OPTIONS"))
        assert client.reply().headers["allow"] == "GET, HEAD, OPTIONS, POST"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "HEAD"])
def test_a_wrong_method_is_405_with_what_is_allowed(running: Running, method: str) -> None:
    reply = running.ask(get("/predict/double", method=method))
    assert (reply.status, reply.headers["allow"]) == (405, "OPTIONS, POST")
    assert not reply.closes


def test_an_unknown_path_names_the_near_ones(running: Running) -> None:
    reply = running.ask(post("/v2/modles/double/infer", {"x": [1]}))
    assert reply.status == 404
    assert "/v2/models/{name}/infer" in reply.json["error"]
    assert not reply.closes


def test_failures_take_the_form_of_their_protocol(running: Running) -> None:
    assert "not JSON" in running.ask(post("/predict/double", b"{")).json["failure"]
    reply = running.ask(post("/predict/double", b"x", headers={"Content-Type": "text/csv"}))
    assert (reply.status, reply.json["failure"]) == (415, "content-type: expected application/json, got text/csv")
    reply = running.ask(get("/v1/models/nothing"))
    assert (reply.status, reply.json["failure"]) == (404, "there is no model 'nothing'")


@pytest.mark.parametrize(
    "request_bytes",
    [
        post("/predict/broken", {}),
        post("/predict/bad_output", {}),
        get("/broken"),
        get("/split"),
        get("/later", headers={"X-Break": "1"}),
    ],
)
def test_what_breaks_inside_is_500_and_tells_nothing(
    running: Running, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with running.connect() as client:
        client.send(request_bytes)
        reply = client.reply()
        assert reply.status == 500
        assert reply.json == {"failure": "the server failed on this request; its log says why"}
        assert "set-cookie" not in reply.headers
        assert any(record.name == "turnout" and record.exc_info for record in caplog.records)
        client.send(get("/"))
        assert client.reply().status == 200


def test_an_answer_may_have_to_be_waited_for(running: Running) -> None:
    with running.connect() as client:
        client.send(get("/later") + get("/"))
        assert client.reply().json == {"later": True}
        assert client.reply().json == {"live": True}
    with running.connect() as client:
        client.send(get("/later?long"))
        running.until(lambda: running.door.connections > 0)
    running.until(lambda: running.protocol.cancelled == 1)


def test_overload_is_refused_before_a_body_that_is_dear_to_decode(running: Running) -> None:
    reply = running.ask(post("/predict/full", b"this is not even JSON" * 200))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert not reply.closes


def test_keep_alive_and_close(running: Running) -> None:
    with running.connect() as client:
        for value in range(5):
            client.send(post("/predict/double", {"x": [value]}))
            reply = client.reply()
            assert reply.json == {"y": [2.0 * value]}
            assert "connection" not in reply.headers
        client.send(post("/predict/double", {"x": [1]}, headers={"Connection": "Close"}))
        assert client.reply().closes
        assert client.ended()


def test_http_1_0_closes_unless_asked_not_to(running: Running) -> None:
    with running.connect() as client:
        client.send(post("/predict/double", {"x": [1]}, version="1.0", headers={"Connection": "keep-alive"}))
        assert client.reply().headers["connection"] == "keep-alive"
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.reply().closes
        assert client.ended()


def test_chunked_bodies_with_extensions_and_trailers(running: Running) -> None:
    body = b'4;name=value;other="x y"\r\n{"x"\r\n00005\r\n:[21]\r\n1\r\n}\r\n0\r\nChecksum: 12\r\n\r\n'
    with running.connect() as client:
        client.send(chunked("/predict/double", body) + get("/"))
        assert client.reply().json == {"y": [42.0]}
        assert client.reply().json == {"live": True}


def test_expect_100_continue(running: Running) -> None:
    whole = post("/predict/double", {"x": [1]}, headers={"Expect": "100-continue"})
    head, _, body = whole.partition(b"\r\n\r\n")
    with running.connect() as client:
        client.send(head + b"\r\n\r\n")
        assert client.head() == b"HTTP/1.1 100 Continue"
        client.send(body)
        assert client.reply().json == {"y": [2.0]}
        client.send(head.replace(b"/predict/double", b"/nowhere") + b"\r\n\r\n")
        reply = client.reply()  # a final answer instead of the invitation
        assert (reply.status, reply.interim, reply.closes) == (404, [], True)
        assert client.ended()


def test_the_invitation_waits_for_earlier_answers(running: Running) -> None:
    whole = post("/predict/double", {"x": [1]}, headers={"Expect": "100-continue"})
    head, _, body = whole.partition(b"\r\n\r\n")
    with running.connect() as client:
        client.send(post("/predict/held", {"key": "before"}) + head + b"\r\n\r\n")
        running.release("before")
        assert client.reply().json["key"] == "before"
        assert client.head() == b"HTTP/1.1 100 Continue"
        client.send(body)
        assert client.reply().json == {"y": [2.0]}


def test_another_expectation_cannot_be_met(running: Running) -> None:
    assert running.ask(post("/predict/double", {}, headers={"Expect": "miracles"})).status == 417


def _raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("coding", "compress"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZip", lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:])),
        ("deflate", zlib.compress),
        ("deflate", _raw_deflate),
        ("identity", bytes),
    ],
)
def test_compressed_requests(running: Running, coding: str, compress: object) -> None:
    body = compress(json.dumps({"x": [4] * 50}).encode())  # type: ignore[operator]
    reply = running.ask(post("/predict/double", body, headers={"Content-Encoding": coding}))
    assert reply.json == {"y": [8.0] * 50}
    reply = running.ask(post("/echo", body, headers={"Content-Encoding": coding}))
    assert reply.json == {"x": [4] * 50}


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", b"{}", 501),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}")), 501),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}")[:-4], 400),
        ("gzip", gzip.compress(b"{}") + b"more", 400),
        ("gzip", gzip.compress(b"{}") * 30, 400),
        ("deflate", zlib.compress(b"{}") + b"more", 400),
        ("gzip", b"", 400),
    ],
)
def test_codings_that_cannot_be_read(running: Running, coding: str, body: bytes, status: int) -> None:
    with running.connect() as client:
        client.send(post("/predict/double", body, headers={"Content-Encoding": coding}))
        reply = client.reply()
        assert reply.status == status
        assert "failure" in reply.json
        client.send(get("/"))
        assert client.reply().status == 200


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=1.0, gzip;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0.5, identity", ""),
        ("gzip;q=nonsense", ""),
        ("br", ""),
        ("", ""),
    ],
)
def test_compressed_answers_where_asked_for(running: Running, accept: str, coding: str) -> None:
    with running.connect() as client:
        client.send(post("/predict/large", {"size": 5000}, headers={"Accept-Encoding": accept}))
        reply = client.reply()
        assert reply.headers.get("content-encoding", "") == coding
        plain = {"gzip": gzip.decompress, "deflate": zlib.decompress, "": bytes}[coding](reply.body)
        assert plain == bytes(i % 256 for i in range(5000))
        client.send(post("/predict/large", {"size": 500}, headers={"Accept-Encoding": accept}))
        assert "content-encoding" not in client.reply().headers


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3_000_000, 20_000_000])
def test_large_answers(running: Running, size: int) -> None:
    reply = running.ask(post("/predict/large", {"size": size}))
    assert len(reply.body) == size
    assert reply.body == bytes(range(256)) * (size // 256) + bytes(range(size % 256))


@pytest.mark.parametrize("size", [16_383, 16_384, 262_144, 600_000, 3_000_000, 30_000_000])
def test_large_requests_then_a_small_one(running: Running, size: int) -> None:
    body = bytes(range(251)) * (size // 251) + bytes(size % 251)
    with running.connect() as client:
        request = post("/predict/double", body, headers={"Content-Type": "application/octet-stream"})
        client.send(request + get("/"))
        assert client.reply().json == {"y": [2.0 * size, 2.0 * sum(body)]}
        assert client.reply().json == {"live": True}
        client.send(request)
        assert client.reply().json == {"y": [2.0 * size, 2.0 * sum(body)]}


def test_a_large_chunked_body(running: Running) -> None:
    piece = bytes(range(256)) * 512
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for _ in range(40)) + b"0\r\n\r\n"
    headers = {"Content-Type": "application/octet-stream"}
    reply = running.ask(chunked("/predict/double", chunks, headers=headers))
    assert reply.json == {"y": [2.0 * 40 * len(piece), 2.0 * 40 * sum(piece)]}


def test_on_the_plain_event_loop_too() -> None:
    body = bytes(3_000_000)
    with Running(uv=False) as running, running.connect() as client:
        client.send(post("/predict/double", body, headers={"Content-Type": "application/octet-stream"}) + get("/"))
        assert client.reply().json == {"y": [6_000_000.0, 0.0]}
        assert client.reply().json == {"live": True}
        client.send(post("/predict/large", {"size": 3_000_000}))
        assert len(client.reply().body) == 3_000_000
