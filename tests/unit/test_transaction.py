"""The values: what a transaction says of itself, and that nothing is lost in saying it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxdtap.transaction import (
    EMPTY,
    Body,
    Capture,
    Opcode,
    Request,
    Timing,
    Transaction,
    decode,
    encode,
    header,
)

from .conversation import BASE, GET, OK, SECOND, reply, request, talk


@settings(deadline=None)
@given(st.binary())
def test_text_gives_its_bytes_back(raw: bytes) -> None:
    """Any bytes survive being text."""
    assert encode(decode(raw)) == raw


def test_a_header_is_found_in_any_case() -> None:
    """Of several values the first is given; of none, None."""
    told = reply(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n")
    assert told.response is not None
    headers = told.response.headers
    assert (header(headers, "X-a"), header(headers, "X-B")) == ("1", None)


def test_values_do_not_change() -> None:
    """What the log was given cannot change under it."""
    told = talk(">>", GET, "<<", OK).only
    for value, name in ((told, "number"), (told.request, "method"), (told.timing, "begun")):
        with pytest.raises(AttributeError):
            setattr(value, name, None)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 30))
def test_a_capture_counts_and_hashes_what_it_does_not_keep(pieces: list[bytes], limit: int) -> None:
    """In whatever pieces it comes, a body is the same, and knows whether it is whole."""
    whole = b"".join(pieces)
    capture = Capture(limit)
    for piece in pieces:
        capture.add(piece)
    body = capture.body()
    assert (body.size, body.captured) == (len(whole), whole[:limit])
    assert body.whole is (len(whole) <= limit)
    assert body.sha256 == hashlib.sha256(whole).hexdigest()
    assert bool(body.digest) is not body.whole


def test_nothing_is_one_value() -> None:
    """A capture that took nothing, or pieces of nothing, is empty."""
    capture = Capture(0)
    capture.add(b"")
    assert capture.body() == EMPTY == Body()


def test_a_capture_can_go_on_after_it_was_asked() -> None:
    """What was taken until now is a value that later pieces do not change."""
    capture = Capture(3)
    capture.add(b"ab")
    before = capture.body()
    capture.add(b"cd")
    assert (before, capture.body().captured) == (Body(2, b"ab"), b"abc")


@pytest.mark.parametrize(
    ("target", "path", "url"),
    [
        (b"/1.0?a=b", "/1.0", BASE + "/1.0?a=b"),
        (b"/1.0/files?path=http://x/y", "/1.0/files", BASE + "/1.0/files?path=http://x/y"),
        (b"/1.0/a://b", "/1.0/a://b", BASE + "/1.0/a://b"),
        (b"http://lxd/1.0/x?a=b", "/1.0/x", "http://lxd/1.0/x?a=b"),
        (b"http://lxd", "/", "http://lxd"),
        (b"http://lxd?a", "/", "http://lxd?a"),
        (b"*", "*", BASE + "*"),
    ],
)
def test_a_target_has_a_path_and_an_address(target: bytes, path: str, url: str) -> None:
    """A query is no part of the path, and only an absolute target has its own address."""
    told = request(b"GET " + target + b" HTTP/1.1\r\n")
    assert (told.request.target, told.request.path, told.url) == (decode(target), path, url)


def test_a_capture_counts_what_was_skipped() -> None:
    """Bytes that are known of and not known make it incomplete; a hash may come from elsewhere."""
    capture = Capture(9)
    capture.add(b"abc")
    capture.skip(4)
    capture.add(b"de")
    assert capture.body("f00") == Body(9, b"abc", "f00")
    assert not capture.body().whole


@pytest.mark.parametrize(
    ("opcode", "control"),
    [
        (Opcode.CONTINUATION, False),
        (Opcode.TEXT, False),
        (Opcode.BINARY, False),
        (Opcode.CLOSE, True),
        (Opcode.PING, True),
        (Opcode.PONG, True),
    ],
)
def test_some_frames_steer(opcode: Opcode, control: bool) -> None:
    """Close, ping and pong carry no data."""
    assert opcode.control is control


def test_a_finished_transaction_has_its_duration() -> None:
    """Waited for is the answer's head, and the duration goes to the end, whatever the time."""
    timing = talk(">>", GET, "<<", OK[:-1], OK[-1:]).only.timing
    assert (timing.waited, timing.duration(), timing.duration(99 * SECOND)) == (2.0, 3.0, 3.0)


def test_a_transaction_that_goes_on_has_lasted_until_now() -> None:
    """Without an end, the time that is given is the end; without either, nothing has passed."""
    timing = Timing(wall=0, begun=5 * SECOND)
    assert (timing.waited, timing.duration(), timing.duration(7 * SECOND)) == (None, 0.0, 2.0)


def test_no_time_is_negative() -> None:
    """An answer that came before its question was complete took no time."""
    timing = Timing(wall=0, begun=5, answered=4, ended=3)
    assert (timing.waited, timing.duration()) == (0.0, 0.0)


def test_little_makes_a_transaction() -> None:
    """What is not known is absent, empty or false."""
    told = Transaction(1, BASE, Request("GET", "/"), Timing(0, 0))
    assert (told.response, told.tunnel, told.peer, told.broken, told.own) == (
        None,
        None,
        None,
        "",
        False,
    )
    assert told.request.body is EMPTY
