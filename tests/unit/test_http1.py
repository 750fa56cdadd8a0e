"""HTTP/1 framing of one direction: what is read, what is not, and where it stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxdtap import http1
from lxdtap.http1 import CHUNKED, UNTIL_CLOSE, Data, End, Garbled, Head, Item, RawHeaders, Reader

from .conversation import cost, pieces

GET = b"GET /1.0 HTTP/1.1\r\nHost: lxd\r\n\r\n"
PUT = b"PUT /1.0 HTTP/1.1\r\n\r\n"


def read(*chunks: bytes, framing: int = 0, reader: Reader | None = None) -> list[Item]:
    """What a reader makes of these bytes, where every head is followed by a body of one framing.

    Pieces of data that follow each other are one.
    """
    reader = reader or Reader()
    items: list[Item] = []
    for chunk in chunks:
        reader.receive(chunk)
        while (item := reader.next()) is not None:
            if isinstance(item, Head):
                reader.expect(framing)
            if isinstance(item, Data) and items and isinstance(items[-1], Data):
                item = Data(items.pop()[0] + item.data)
            items.append(item)
    return items


def body(*chunks: bytes, framing: int) -> list[Item]:
    """What a reader makes of a body that is so framed."""
    return read(PUT, *chunks, framing=framing)[1:]


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


# -- start lines


@pytest.mark.parametrize(
    ("start", "parts"),
    [
        (b"GET /1.0 HTTP/1.1", (b"GET", b"/1.0", b"HTTP/1.1")),
        (b"mkcol http://lxd/1.0?x HTTP/1.0", (b"mkcol", b"http://lxd/1.0?x", b"HTTP/1.0")),
        (b"GET /a b HTTP/1.1", (b"GET", b"/a b", b"HTTP/1.1")),
        (b"GET   /1.0   HTTP/1.1", (b"GET", b"/1.0", b"HTTP/1.1")),
        (b"GET  HTTP/1.1", (b"GET", b"", b"HTTP/1.1")),
        (b"G\xc3 /\xff HTTP/1.1", (b"G\xc3", b"/\xff", b"HTTP/1.1")),
        (b"PRI * HTTP/2.0", (b"PRI", b"*", b"HTTP/2.0")),
        (b"", None),
        (b"GET", None),
        (b"GET /1.0", None),
        (b" /1.0 HTTP/1.1", None),
        (b"GET HTTP/1.1", None),
        (b"GET /1.0 HTTP/1.10", None),
        (b"GET /1.0 http/1.1", None),
        (b"GET\t/1.0 HTTP/1.1", None),
        (b"HTTP/1.1 200 OK", None),
    ],
)
def test_request_line(start: bytes, parts: tuple[bytes, bytes, bytes] | None) -> None:
    """A request line is a method, whatever stands between, and a version."""
    assert http1.request_line(start) == parts


@pytest.mark.parametrize(
    ("start", "parts"),
    [
        (b"HTTP/1.1 200 OK", (b"HTTP/1.1", 200, b"OK")),
        (b"HTTP/1.0 404 Not  Found", (b"HTTP/1.0", 404, b"Not  Found")),
        (b"HTTP/1.1  200 \xff\r", (b"HTTP/1.1", 200, b"\xff\r")),
        (b"HTTP/1.1 200 ", (b"HTTP/1.1", 200, b"")),
        (b"HTTP/1.1 200", (b"HTTP/1.1", 200, b"")),
        (b"HTTP/1.1 20", None),
        (b"HTTP/1.1 2000", None),
        (b"HTTP/1.1 200OK", None),
        (b"HTTP/1.1 abc OK", None),
        (b"HTTP/1 200 OK", None),
        (b"GET / HTTP/1.1", None),
        (b"", None),
    ],
)
def test_status_line(start: bytes, parts: tuple[bytes, int, bytes] | None) -> None:
    """A status line is a version, three digits, and whatever reason, none included."""
    assert http1.status_line(start) == parts


# -- heads


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        (b"", ()),
        (b"Host: lxd\r\nAccept: */*\r\n", ((b"Host", b"lxd"), (b"Accept", b"*/*"))),
        (b"hOsT:lxd\r\n", ((b"hOsT", b"lxd"),)),
        (b"A: 1\r\nA: 2\r\n", ((b"A", b"1"), (b"A", b"2"))),
        (b"A: \t 1 : 2 \t\r\n", ((b"A", b"1 : 2"),)),
        (b"A:\r\nB: \r\n", ((b"A", b""), (b"B", b""))),
        (b"A: 1\nB: 2\r\n", ((b"A", b"1"), (b"B", b"2"))),
        (b"A\xff: \xfe\x00\r\n", ((b"A\xff", b"\xfe\x00"),)),
        (b"no colon\r\n", ((b"no colon", b""),)),
        (b": empty\r\n", ((b"", b"empty"),)),
        (b"A : 1\r\n", ((b"A ", b"1"),)),
        (b" A: first of all\r\n", ((b" A", b"first of all"),)),
        (b"A: 1 \r\n  2\t\r\n\t3\r\nB: 4\r\n", ((b"A", b"1 2 3"), (b"B", b"4"))),
        (b"A:\r\n 1\r\n", ((b"A", b"1"),)),
        (b"A: 1\r\n \r\n 2\r\n", ((b"A", b"1  2"),)),
    ],
)
def test_headers(lines: bytes, headers: RawHeaders) -> None:
    """Headers are read as Go's textproto.Reader does, in order, spelling and number of the wire."""
    raw = b"GET / HTTP/1.1\r\n" + lines + b"\r\n"
    assert read(raw) == [Head(b"GET / HTTP/1.1", headers, raw), End()]


@pytest.mark.parametrize("head", [GET, GET.replace(b"\r", b""), b"GET / HTTP/1.1\n\r\n", b"\r\n"])
def test_a_head_bytewise(head: bytes) -> None:
    """However its lines end and its bytes come, a head is read with its very last byte."""
    *before, last = bytewise(head)
    reader = Reader()
    assert read(*before, reader=reader) == []
    assert read(last, reader=reader) == read(head)


def test_values() -> None:
    """A header's values are found in any spelling of its name, all of them, in order."""
    headers = ((b"Via", b"1"), (b"VIA", b"2"), (b"Via ", b"3"), (b"via", b""))
    assert http1.values(headers, b"via") == [b"1", b"2", b""]


def test_pipelined_heads() -> None:
    """What follows a message in the same read is the next one."""
    assert read(GET + PUT + GET) == read(GET) + read(PUT) + read(GET)


def test_a_head_may_be_large() -> None:
    """A head is read up to its limit, and not beyond it, however it comes."""
    room = http1.HEAD_LIMIT - len(b"GET / HTTP/1.1\r\n\r\n")
    fits = b"GET / HTTP/1.1\r\n" + b"x" * room + b"\r\n"
    with_end = fits[:-2] + b"\r\n\r\n"
    fitting, beyond = fits[:-3] + b"\n\r\n", with_end
    assert len(fitting) == http1.HEAD_LIMIT
    assert [type(item) for item in read(fitting)] == [Head, End]
    assert read(beyond) == [Garbled("a head that is too long"), Data(beyond)]
    assert read(beyond[:-2], beyond[-2:]) == read(beyond)


def test_a_head_in_small_pieces_costs_no_more_towards_its_end() -> None:
    """A byte of a head is looked at a fixed number of times: no search begins again."""
    reader = Reader()
    piece = b"X: 1234567890\r\n" * 4

    def sixteenth() -> None:
        for _ in range(1024):
            reader.receive(piece)
            assert reader.next() is None

    reader.receive(b"GET / HTTP/1.1\r\n")
    early = cost(sixteenth)  # three of them
    for _ in range(11):
        sixteenth()
    late = cost(sixteenth)
    assert http1.HEAD_LIMIT - reader.pending < 1 << 17
    assert late < 8 * early


@pytest.mark.parametrize("line", [b" \n", b"\tx\r\n", b"A: b\n", b"\r\n "])
def test_many_header_lines_are_read_in_linear_time(line: bytes) -> None:
    """Eight times as many lines, folded or not, take some eight times as long, not sixty-four."""
    few, many = (b"GET / HTTP/1.1\r\nA: b\n" + line * count for count in (15_000, 120_000))
    assert cost(lambda: http1.parse_head(many)) < 32 * cost(lambda: http1.parse_head(few))


@pytest.mark.parametrize("line", [b"G" + b" " * 500_000, b" " * 500_000, b"G /" + b" H" * 250_000])
def test_a_request_line_is_read_in_linear_time(line: bytes) -> None:
    """No start line of any length makes the reader try again and again."""
    assert http1.request_line(line) is None
    assert http1.status_line(b"HTTP/1.1" + line) is None


def test_line_ends_after_a_post() -> None:
    """After a POST up to four CR or LF are passed over, as Go does for old clients."""
    for ends in (b"", b"\r\n", b"\n", b"\r\n\r\n", b"\n\n\n\n"):
        for chunks in ([ends + GET], bytewise(ends + GET)):
            reader = Reader()
            reader.forgive()
            assert read(*chunks, reader=reader) == read(GET)


def test_line_ends_that_are_not_forgiven() -> None:
    """A fifth line end, and one before any other message, is an empty head."""
    reader = Reader()
    reader.forgive()
    assert read(b"\n\n\n\n\n", reader=reader) == [Head(b"", (), b"\n"), End()]
    assert read(GET, reader=reader) == read(GET)
    assert read(b"\r\n", reader=reader) == [Head(b"", (), b"\r\n"), End()]


def test_forgiven_line_ends_leave_it_idle() -> None:
    """A line end that is passed over is not the beginning of anything."""
    reader = Reader()
    reader.forgive()
    read(b"\r\n", reader=reader)
    assert reader.idle


# -- how a body is framed

LENGTH, CODING = b"Content-Length", b"Transfer-Encoding"
MALFORMED = "a malformed Content-Length"
UNKNOWN = "a transfer encoding other than chunked"


@pytest.mark.parametrize(
    ("headers", "framing"),
    [
        ((), None),
        (((b"content-LENGTH", b"5"),), 5),
        (((LENGTH, b"5"), (LENGTH, b"5")), 5),
        (((LENGTH, b"5"), (LENGTH, b"5\r")), 5),
        (((LENGTH, b"0" * 5000 + b"5"),), 5),
        (((LENGTH, b"0"),), 0),
        (((LENGTH, b""),), None),
        (((LENGTH, b"9223372036854775807"),), (1 << 63) - 1),
        (((LENGTH, b"9223372036854775808"),), MALFORMED),
        (((LENGTH, b"9" * 100_000),), MALFORMED),
        (((LENGTH, b"5"), (LENGTH, b"6")), MALFORMED),
        (((LENGTH, b"5"), (LENGTH, b"05")), MALFORMED),
        (((LENGTH, b"5"), (LENGTH, b"")), MALFORMED),
        (((LENGTH, b"5, 5"),), MALFORMED),
        (((LENGTH, b"+5"),), MALFORMED),
        (((LENGTH, b"-1"),), MALFORMED),
        (((LENGTH, b"1_0"),), MALFORMED),
        (((LENGTH, b"0x5"),), MALFORMED),
        (((LENGTH, "\u0665".encode()),), MALFORMED),
        (((b"Content-Length ", b"5"),), None),
        (((CODING, b"chunked"),), CHUNKED),
        (((CODING, b"Chunked"),), CHUNKED),
        (((CODING, b"chunked"), (LENGTH, b"5")), CHUNKED),
        (((LENGTH, b"5"), (CODING, b"chunked"), (LENGTH, b"6")), CHUNKED),
        (((CODING, b"chunked"), (CODING, b"chunked")), UNKNOWN),
        (((CODING, b"gzip, chunked"),), UNKNOWN),
        (((CODING, b"identity"),), UNKNOWN),
        (((CODING, b""),), UNKNOWN),
    ],
)
def test_framing(headers: RawHeaders, framing: int | str | None) -> None:
    """A body is framed as Go's transfer.go has it; with nothing said it is empty, or until close."""
    request = http1.request_framing(headers, b"HTTP/1.1")
    response = http1.response_framing(headers, b"HTTP/1.1", 200, b"GET")
    assert request == (0 if framing is None else framing)
    assert response == (UNTIL_CLOSE if framing is None else framing)


def test_http_1_0_knows_no_chunks() -> None:
    """In HTTP/1.0 a Transfer-Encoding means nothing, and a length beside it counts."""
    alone, beside = ((CODING, b"chunked"),), ((CODING, b"chunked"), (LENGTH, b"5"))
    assert http1.request_framing(alone, b"HTTP/1.0") == 0
    assert http1.request_framing(beside, b"HTTP/1.0") == 5
    assert http1.response_framing(alone, b"HTTP/1.0", 200, b"GET") == UNTIL_CLOSE


@pytest.mark.parametrize(
    ("status", "method", "empty"),
    [
        (200, b"HEAD", True),
        (501, b"HEAD", True),
        (204, b"GET", True),
        (304, b"GET", True),
        (100, b"GET", True),
        (200, b"head", False),
        (200, b"CONNECT", False),
        (205, b"GET", False),
        (400, b"GET", False),
    ],
)
@pytest.mark.parametrize(
    "headers", [((LENGTH, b"120"),), ((CODING, b"chunked"),), ((LENGTH, b"?"),), ()]
)
def test_answers_without_body(status: int, method: bytes, empty: bool, headers: RawHeaders) -> None:
    """An answer to HEAD, a 1xx, a 204 and a 304 have no body, whatever their headers say."""
    framing = http1.response_framing(headers, b"HTTP/1.1", status, method)
    assert (framing == 0) is empty


# -- bodies


@pytest.mark.parametrize("data", [b"", b"x", b"null", b"\r\n\r\n", GET])
def test_a_counted_body(data: bytes) -> None:
    """A body with a length is so many bytes, whatever they look like, and then it is complete."""
    pieces: list[Item] = [Data(data)] if data else []
    for chunks in ([data + b"\r\n\r\n"], bytewise(data + b"\r\n\r\n")):
        told = body(*chunks, framing=len(data))
        assert told[: len(pieces) + 1] == [*pieces, End()]


def test_a_body_until_close() -> None:
    """A body until close is complete when the stream ends, and only then."""
    reader = Reader()
    assert read(PUT + b"ab", b"c", framing=UNTIL_CLOSE, reader=reader)[1:] == [Data(b"abc")]
    assert not reader.idle
    assert reader.end()
    assert reader.idle
    assert not reader.end()


@pytest.mark.parametrize(
    ("raw", "data", "trailers"),
    [
        (b"0\r\n\r\n", b"", ()),
        (b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", ()),
        (b"3\nabc\n0\n\n", b"abc", ()),
        (b"0000000000000003\r\nabc\r\n0000\r\n\r\n", b"abc", ()),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", ()),
        (b'3;a="b;c" ; d\r\nabc\r\n0;last\r\n\r\n', b"abc", ()),
        (b"3 \t\r\r\nabc\r\n0\r\n\r\n", b"abc", ()),
        (b"3\r\n0\r\n\r\n\r\n\r\n", b"0\r\n", ()),
        (b"0\r\nA: 1\r\nB:\r\n 2\r\n\r\n", b"", ((b"A", b"1"), (b"B", b"2"))),
        (b"0\nA: 1\n\n", b"", ((b"A", b"1"),)),
    ],
)
def test_a_chunked_body(raw: bytes, data: bytes, trailers: RawHeaders) -> None:
    """A chunked body is its chunks' data, without sizes, extensions and line ends."""
    expected = ([Data(data)] if data else []) + [End(trailers)]
    assert body(raw + GET, framing=CHUNKED)[: len(expected)] == expected
    assert body(*bytewise(raw), framing=CHUNKED) == expected


def test_an_empty_chunk_size() -> None:
    """A chunk without any size is the last one, because Go 1.19 and older take it for that."""
    for raw in (b"\r\n\r\n", b";x\n\r\n"):
        assert body(b"1\r\na\r\n" + raw, framing=CHUNKED) == [Data(b"a"), End()]


@pytest.mark.parametrize(
    ("raw", "data", "reason"),
    [
        (b"xyz\r\nabc", b"", "a malformed chunk size"),
        (b"-1\r\nabc", b"", "a malformed chunk size"),
        (b"1_0\r\nabc", b"", "a malformed chunk size"),
        (b"0x1\r\nabc", b"", "a malformed chunk size"),
        (b"1" * 17 + b"\r\nabc", b"", "a malformed chunk size"),
        (b"3\r\nabcde", b"abc", "a chunk without its end"),
        (b"3\r\nabc\rde", b"abc", "a chunk without its end"),
        (b"3\r\nabc\r\r\n", b"abc", "a chunk without its end"),
        (b"3;" + b"x" * 4093, b"", "a chunk-size line that is too long"),
        (b"0\r\n" + b"x" * http1.HEAD_LIMIT, b"", "trailers too long"),
    ],
)
def test_a_body_that_cannot_be_followed(raw: bytes, data: bytes, reason: str) -> None:
    """Where chunks make no sense, that is said once, and all from there on is given as it is."""
    whole = body(raw, b"more", framing=CHUNKED)
    assert whole[:-1] == ([Data(data)] if data else []) + [Garbled(reason)]
    (rest,) = whole[-1]
    assert (raw + b"more").endswith(rest)
    assert whole[-2:] == body(*bytewise(raw + b"more"), framing=CHUNKED)[-2:]


def test_the_longest_chunk_line() -> None:
    """A chunk-size line may be as long as Go lets it be."""
    line = b"1;" + b"x" * (http1.CHUNK_LINE_LIMIT - 3) + b"\n"
    assert body(line + b"a\r\n0\r\n\r\n", framing=CHUNKED) == [Data(b"a"), End()]


# -- where it stands


def test_where_it_stands() -> None:
    """A reader can say at any time in the middle of what it is."""
    reader = Reader()
    assert (reader.idle, reader.doing) == (True, "head, after 0 bytes")
    reader.receive(b"GET / ")
    assert (reader.next(), reader.idle, reader.doing) == (None, False, "head, after 6 bytes")
    reader.receive(b"HTTP/1.1\r\n\r\n")
    assert isinstance(reader.next(), Head)
    assert reader.next() is None  # before it is told how the body is framed
    reader.expect(10)
    reader.receive(b"abc")
    assert (reader.next(), reader.doing) == (Data(b"abc"), "body, 7 bytes short")
    assert not reader.idle
    reader.expect(CHUNKED)
    assert reader.doing == "body"


def test_a_message_that_was_no_whole_one() -> None:
    """After a restart the next head follows, as it does after an interim answer."""
    reader = Reader()
    reader.receive(GET + PUT)
    assert isinstance(reader.next(), Head)
    reader.restart()
    assert reader.next() == Head(b"PUT /1.0 HTTP/1.1", (), PUT)


def test_giving_up() -> None:
    """After giving up everything is data, and nothing is ever complete."""
    reader = Reader()
    reader.receive(GET)
    reader.give_up()
    assert reader.next() == Data(GET)
    assert reader.next() is None
    assert not reader.end()


def test_taking_over() -> None:
    """What was received and not read can be taken, once, for somebody else to follow."""
    reader = Reader()
    reader.receive(GET + b"\x81\x00")
    reader.next()
    assert reader.startswith(b"\x81")
    assert not reader.startswith(b"\x81\x00\x00")
    assert (reader.take(), reader.take(), reader.pending) == (b"\x81\x00", b"", 0)


# -- properties

TOKENS = st.text("abcdefXYZ-", min_size=1, max_size=8).map(str.encode)
SPACES = st.sampled_from([b"", b" ", b"\t "])
ENDS = st.sampled_from([b"\r\n", b"\n"])
TRAILERS = st.lists(st.tuples(TOKENS, TOKENS), max_size=3)


@st.composite
def chunked(draw: st.DrawFn, data: bytes, trailers: RawHeaders) -> bytes:
    """Some way to say this in chunks."""
    encoded = b""
    for piece in draw(pieces(data)) if data else []:
        size = draw(st.sampled_from([b"%x", b"%X", b"%08x"])) % len(piece)
        extension = draw(st.sampled_from([b"", b" ", b";a", b"; a=b", b';a="\xff;"']))
        encoded += size + extension + draw(ENDS) + piece + draw(ENDS)
    encoded += draw(st.sampled_from([b"0", b"000", b"0;a=b", b"0 "])) + draw(ENDS)
    for name, value in trailers:
        encoded += name + b":" + draw(SPACES) + value + draw(SPACES) + draw(ENDS)
    return encoded + draw(ENDS)


@given(st.data(), st.binary(max_size=200), TRAILERS)
def test_chunks_are_undone(
    given: st.DataObject, data: bytes, trailers: list[tuple[bytes, bytes]]
) -> None:
    """However a body is chunked, and the chunks are cut, the body comes back, and its trailers."""
    raw = given.draw(chunked(data, tuple(trailers)))
    told = body(*given.draw(pieces(raw)), framing=CHUNKED)
    assert told == ([Data(data)] if data else []) + [End(tuple(trailers))]


MESSY = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n\r\n", b" ", b":", b"0", b"5", b"a;", b"HTTP/1.1", b"\xff"]
    )
    | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


@given(st.data(), MESSY, st.sampled_from([0, 3, CHUNKED, UNTIL_CLOSE]))
def test_any_bytes_in_any_pieces(given: st.DataObject, raw: bytes, framing: int) -> None:
    """No bytes can make it fail, and it does not matter how they are cut."""
    whole = read(raw, framing=framing)
    assert read(*given.draw(pieces(raw)), framing=framing) == whole
    assert read(*bytewise(raw), framing=framing) == whole


@given(st.data(), MESSY, st.sampled_from([0, 3, UNTIL_CLOSE]))
def test_no_byte_is_lost(given: st.DataObject, raw: bytes, framing: int) -> None:
    """Heads as they were sent, data, and what is still waiting are all that was received."""
    reader = Reader()
    told = b""
    for item in read(*given.draw(pieces(raw)), framing=framing, reader=reader):
        told += item.raw if isinstance(item, Head) else item.data if isinstance(item, Data) else b""
    assert told + reader.take() == raw
