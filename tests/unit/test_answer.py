"""What an answer is as bytes."""

from __future__ import annotations

import json

import pytest
import wsproto.frame_protocol
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.replay import answer
from lxdtap.transaction import EMPTY, Headers, Opcode, Response
from lxdtap.wire.websocket import Decoder
from tests.unit.builders import body, response
from tests.unit.recordings import SFTP, SWITCHED, WEBSOCKET, asked

FILE = response(200, b"0123456789", (("Content-Type", "application/octet-stream"),))


def test_a_miss_is_lxds_error() -> None:
    """All keys in LXD's order, under a status that no client takes for an answer."""
    missed = answer.envelope(answer.MISSED, "why")
    document = json.loads(missed.body.captured)
    assert list(document) == [
        *("type", "status", "status_code", "operation", "error_code", "error", "metadata"),
    ]
    assert (document["error_code"], document["error"]) == (missed.status, "lxdtap: why")


def test_the_state_of_an_operation() -> None:
    """It is in the envelope that LXD gives it in."""
    document = json.loads(answer.operation({"id": "é"}).body.captured)
    assert (document["type"], document["metadata"]) == ("sync", {"id": "é"})


def test_accept() -> None:
    """Sec-WebSocket-Accept is of this client's key: RFC 6455's own example."""
    recorded = Response(101, headers=(("Upgrade", "x"), ("Sec-WebSocket-Accept", "y"), ("A", "b")))
    headers = answer.upgraded(recorded, asked("GET", "/", headers=WEBSOCKET)).headers
    assert headers == (
        ("A", "b"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    )


@pytest.mark.parametrize("headers", [SFTP, ()])
def test_upgrades_without_a_key(headers: Headers) -> None:
    """SFTP has none; nor need anything have been recorded."""
    said = answer.upgraded(None, asked("GET", "/", headers=headers)).headers
    assert [name for name, _ in said] == ["Upgrade", "Connection"]


@pytest.mark.parametrize(
    ("wanted", "status", "data", "extent"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=2-", 206, b"23456789", "bytes 2-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=1-2, 4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_ranges(wanted: str, status: int, data: bytes, extent: str | None) -> None:
    """A part of what was recorded whole can be given; what cannot be read is passed over."""
    said = answer.cut(FILE, asked("GET", "/", headers=(("Range", wanted),)))
    assert (said.status, said.body.captured) == (status, data)
    assert dict(said.headers).get("Content-Range") == extent


@pytest.mark.parametrize(
    ("method", "recorded"),
    [
        ("HEAD", FILE),
        ("GET", response(206, b"01")),
        ("GET", response(200, b"{}", (("Content-Type", "application/json"),))),
    ],
)
def test_no_ranges(method: str, recorded: Response) -> None:
    """HEAD, parts and JSON have none."""
    assert answer.cut(recorded, asked(method, "/", headers=(("Range", "bytes=0-0"),))) is recorded


def test_framing_is_made_anew() -> None:
    """The length is the body's, whatever the framing was; the other headers are as recorded."""
    headers = (("Etag", "x"), ("Transfer-Encoding", "chunked"), ("Connection", "close"))
    said = answer.encoded(Response(200, "OK", headers=headers, body=body(b"ab")), "GET")
    assert said == b"HTTP/1.1 200 OK\r\nEtag: x\r\nContent-Length: 2\r\n\r\nab"


def test_close() -> None:
    """Who wants the connection to end is told that it does."""
    said = answer.encoded(Response(204, "No Content"), "GET", close=True)
    assert said == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("length", [(), (("Content-Length", "120"),)])
def test_head(length: Headers) -> None:
    """No body, and the length that was recorded, if there was one."""
    said = answer.encoded(Response(501, "", headers=length, body=body(b"x" * 120)), "HEAD")
    assert said.endswith(b"\r\n\r\n")
    assert (b"Content-Length: 120" in said) is bool(length)


def test_head_of_what_get_gave() -> None:
    """The headers stay."""
    said = answer.without_body(FILE)
    assert (said.headers, said.body) == (FILE.headers, EMPTY)


def test_101() -> None:
    """It has no length."""
    said = answer.encoded(SWITCHED, "GET")
    assert said == b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


@given(st.sampled_from(Opcode), st.binary(max_size=300), st.booleans(), st.sampled_from([1, 300]))
def test_frames(opcode: Opcode, payload: bytes, final: bool, times: int) -> None:
    """What is encoded is what a decoder reads."""
    data = answer.frame(opcode, payload * times, final=final)
    (frame,) = Decoder(1 << 20).feed(data)
    assert (frame.opcode, frame.payload.captured, frame.final) == (opcode, payload * times, final)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_as_others_make_them(size: int) -> None:
    """The bytes are those of an encoder that is not ours."""
    protocol = wsproto.frame_protocol.FrameProtocol(client=False, extensions=[])
    theirs = protocol.send_data(b"x" * size, fin=True)
    assert answer.frame(Opcode.BINARY, b"x" * size) == theirs
