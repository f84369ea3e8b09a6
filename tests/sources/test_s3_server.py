"""The server that the other tests believe in is what they believe."""

from __future__ import annotations

from s3_server import S3Server


def test_it_keeps_what_it_is_given_and_knows_one_key_only(s3_server: S3Server) -> None:
    s3_server.put("here/is it", b"content")
    assert s3_server.call("GET", "/models/here/is it") == (200, "content")
    assert s3_server.call("GET", "/models/there")[0] == 404
    assert s3_server.call("GET", "/no-such-bucket/there")[0] == 404
    stranger = S3Server(s3_server.directory)
    stranger.port = s3_server.port
    stranger.secret = "another"
    assert stranger.call("GET", "/models/here/is it")[0] == 403
    s3_server.delete("here/is it")
    assert s3_server.call("GET", "/models/here/is it")[0] == 404
