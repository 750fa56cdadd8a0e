"""Messages that come whole: read as the reader would read them, or left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap.transaction import Direction, Moment
from lxdtap.wire import http1, whole
from lxdtap.wire.events import Data, Event, MessageEnd, RequestHead, ResponseHead, WholeMessage

from .conversation import GET, OK, POST, SWITCHING, UPGRADE

AT = Moment(1, 2)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"GET / HTTP/1.1\r\nX: " + b"x" * whole.LONGEST_HEAD + b"\r\n\r\n"


def read(data: bytes) -> tuple[http1.Head, bytes] | None:
    """What the reader makes of a request, if it is whole and nothing follows."""
    reader = http1.Reader()
    reader.receive(data)
    head = reader.next()
    if not isinstance(head, http1.Head):
        return None
    line = http1.request_line(head.start)
    framing = line and http1.request_framing(head.headers, line[2])
    if not isinstance(framing, int):
        return None
    reader.expect(framing)
    body, item = b"", reader.next()
    while isinstance(item, http1.Data):
        body, item = body + item.data, reader.next()
    return (head, body) if item == http1.End() and not reader.pending else None


def taken(data: bytes, answers: bytes = b"") -> tuple[int, bytes] | None:
    """The size of the head, and the bytes without chunks, where a message is taken as whole.

    It is a request where it answers nothing.
    """
    head, _, framing = whole.response(data, answers) if answers else whole.request(data)
    size = len(head)
    if len(data) - size == framing:
        return size, data
    told = whole.joined(data, size, framing)
    return None if told is None else (size, told)


@pytest.mark.parametrize(("data", "method", "body"), [(GET, b"GET", b""), (POST, b"POST", b"ping")])
def test_a_request_that_came_at_once(data: bytes, method: bytes, body: bytes) -> None:
    """It is told apart into method, head and body."""
    assert whole.request(data)[1] == method
    assert taken(data) == (len(data) - len(body), data)


@pytest.mark.parametrize(
    "data",
    [
        *(GET[:-1], GET + b"G", POST[:-1], POST + b"x", UPGRADE, LONG, b"", b"\r\n\r\n"),
        *(b"\r\n" + GET, b"GET /\n\n HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n"),
        b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"PUT / HTTP/1.1\r\nTransfer-Encoding: odd\r\n\r\n",
    ],
)
def test_other_bytes_are_left_to_the_reader(data: bytes) -> None:
    """Less, more, two of them, upgrades, long heads and whatever is odd."""
    assert taken(data) is None


@given(
    st.lists(
        st.sampled_from(
            [
                *(b"GET / HTTP/1.1", b"POST / HTTP/1.0", b"GET /", b"\r\n", b"\n", b"\r\n\r\n"),
                *(b"Content-Length: 2", b"Transfer-Encoding: chunked", b"\r\n \tx", b"hi", b":"),
                *(b"2\r\nhi\r\n", b"0\r\n", b"0\r\n\r\n", b"2;x=1\r\nhi\r\n", b"X: y"),
            ]
        ),
        max_size=12,
    ).map(b"".join)
)
def test_what_is_whole_is_so_for_the_reader_too(data: bytes) -> None:
    """Whatever is taken here, the reader would read the same: the same head, the same body."""
    found = taken(data)
    if found is not None:
        size, told = found
        assert read(data) == (http1.parse_head(told[:size]), told[size:])


def test_a_response_that_came_at_once() -> None:
    """Its head, and its body to the last byte."""
    assert taken(OK, b"GET") == (len(OK) - 2, OK)


def test_a_response_to_head_has_no_body() -> None:
    """Whatever its Content-Length."""
    assert taken(OK[:-2], b"HEAD") == (len(OK) - 2, OK[:-2])
    assert taken(OK, b"HEAD") is None


def test_chunks_are_put_together() -> None:
    """A body in chunks is the same body."""
    size = len(CHUNKED)
    for chunks, body in ((b"2\r\nhi\r\n1\r\n!\r\n", b"hi!"), (b"", b"")):
        found = taken(CHUNKED + chunks + b"0\r\n\r\n", b"GET")
        assert found == (size, CHUNKED + body)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"2", b"2\r\nhi", b"2\r\nhi\r\n", b"2\r\nhi\r\n0\r\n", b"2\r\nhi!\r\n0\r\n\r\n"),
        *(b"0\r\nTrailer: x\r\n\r\n", b"0\r\n\r\nmore", b"2;x=1\r\nhi\r\n0\r\n\r\n"),
        b"1\r\nx\r\n" * (whole.MOST_CHUNKS + 1) + b"0\r\n\r\n",
    ],
)
def test_chunks_that_are_not_plain_are_left_to_the_reader(body: bytes) -> None:
    """Cut short, with trailers, extensions, more behind them, or too many to be read at once."""
    assert taken(CHUNKED + body, b"GET") is None


@pytest.mark.parametrize(
    "data",
    [
        *(OK[:-1], OK + b"x", SWITCHING, b"HTTP/1.1 100 Continue\r\n\r\n", b"hi\r\n\r\n"),
        *(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", b"HT"),
    ],
)
def test_other_answers_are_left_to_the_reader(data: bytes) -> None:
    """What goes on until the close, interim ones, upgrades, and whatever is no response."""
    assert taken(data, b"GET") is None


@given(st.binary(max_size=9))
def test_nothing_is_like_nothing(data: bytes) -> None:
    """Whatever begins as it does is not taken for a message."""
    head, _, framing = whole.NOTHING
    assert len(data) != framing
    assert whole.joined(head + data, len(head), framing) is None


def spelled(direction: Direction, head: bytes, body: bytes = b"") -> list[Event]:
    return list(whole.spelled(WholeMessage(3, 4, AT, direction, len(head), head + body)))


def test_a_request_spelled_out() -> None:
    """It stands for a head, a piece of body and an end."""
    sent = Direction.SENT
    assert spelled(sent, POST[:-4], b"ping") == [
        RequestHead(3, 4, AT, b"POST", b"/1.0", b"HTTP/1.1", ((b"Content-Length", b"4"),)),
        Data(3, 4, AT, sent, b"ping"),
        MessageEnd(3, 4, AT, sent),
    ]


def test_a_response_spelled_out() -> None:
    """The same; without a body there is no piece of one."""
    received = Direction.RECEIVED
    assert spelled(received, b"HTTP/1.1 204 No\r\n\r\n") == [
        ResponseHead(3, 4, AT, 204, b"No", b"HTTP/1.1", ()),
        MessageEnd(3, 4, AT, received),
    ]


@given(st.sampled_from(Direction), st.binary(max_size=40), st.binary(max_size=9))
def test_whatever_a_message_is_made_of_can_be_spelled_out(
    direction: Direction, head: bytes, body: bytes
) -> None:
    """A recording that somebody made up does no harm."""
    assert isinstance(spelled(direction, head, body)[-1], MessageEnd)
