"""Framing: which bytes are a head, which a body, and where it ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxdtap.transaction import encode
from lxdtap.wire import http1

from .conversation import (
    GET,
    OK,
    WHY,
    captured,
    cost,
    pieces,
    reply,
    request,
    statuses,
    talk,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def chunks(pieces: list[bytes]) -> bytes:
    """A body in chunks, as a sender frames it."""
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def read(reader: http1.Reader) -> list[http1.Item]:
    """All items that the bytes received until now make."""
    return list(iter(reader.next, None))


def test_a_head_is_its_lines() -> None:
    """Start line and headers keep their order, spelling and bytes."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nhost:b \r\n\r\n"
    head = http1.Head(b"GET / HTTP/1.1", ((b"Host", b"a"), (b"host", b"b")), raw)
    assert http1.parse_head(raw) == head


def test_bare_lf_ends_a_line() -> None:
    """CR before LF is optional everywhere, as in Go's textproto."""
    told = talk(
        ">>",
        b"POST /1.0 HTTP/1.1\nTransfer-Encoding: chunked\n\n2\nhi\n0\nA: b\n\n",
        "<<",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ).only
    assert (told.request.body.captured, told.request.trailers) == (b"hi", (("A", "b"),))
    assert captured(told) == b"ok"


def test_folded_lines_are_joined_by_one_space() -> None:
    """Obsolete line folding makes one value of several lines."""
    told = request(b"GET / HTTP/1.1\r\nA: one \r\n\t two\r\n   three\r\nB: c\r\n")
    assert told.request.headers == (("A", "one two three"), ("B", "c"))


def test_a_fold_without_a_line_before_it_is_a_header() -> None:
    """White space right after the start line has nothing to continue."""
    assert http1.parse_head(b"GET / HTTP/1.1\r\n A: b\r\n\r\n").headers == ((b" A", b"b"),)


def test_header_bytes_may_be_anything() -> None:
    """Bytes that are not UTF-8 come back as they were."""
    told = request(b"GET /\xff HTTP/1.1\r\nX-\xfe: \xc3\x28\r\n")
    ((name, value),) = told.request.headers
    assert (encode(told.request.target), encode(name), encode(value)) == (
        b"/\xff",
        b"X-\xfe",
        b"\xc3\x28",
    )


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"GET / HTTP/1.1", (b"GET", b"/", b"HTTP/1.1")),
        (b"GET http://lxd/1.0 HTTP/1.0", (b"GET", b"http://lxd/1.0", b"HTTP/1.0")),
        (b"BREW /a b HTTP/1.1", (b"BREW", b"/a b", b"HTTP/1.1")),
        (b"GET  /  HTTP/1.1", (b"GET", b"/", b"HTTP/1.1")),
        (b"GET HTTP/1.1", None),
        (b"GET / HTTP/11", None),
        (b" / HTTP/1.1", None),
        (b"", None),
    ],
)
def test_a_request_line_is_method_target_version(
    line: bytes, parts: tuple[bytes, bytes, bytes] | None
) -> None:
    """Any method and target go; without a version it is no request line."""
    assert http1.request_line(line) == parts


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (b"HTTP/1.1 200 OK", (b"HTTP/1.1", 200, b"OK")),
        (b"HTTP/1.0  404 Not Found", (b"HTTP/1.0", 404, b"Not Found")),
        (b"HTTP/1.1 200", (b"HTTP/1.1", 200, b"")),
        (b"HTTP/1.1 200 ", (b"HTTP/1.1", 200, b"")),
        (b"HTTP/1.1 20 OK", None),
        (b"HTTP/1.1 2000", None),
        (b"SSH-2.0-OpenSSH", None),
    ],
)
def test_a_status_line_is_version_status_reason(
    line: bytes, parts: tuple[bytes, int, bytes] | None
) -> None:
    """The reason may be empty or missing; the status has three digits."""
    assert http1.status_line(line) == parts


@pytest.mark.parametrize(
    ("headers", "framing"),
    [
        (b"", 0),
        (b"Content-Length: 7", 7),
        (b"content-length: 0007", 7),
        (b"Content-Length:", 0),
        (b"Content-Length: 7\nContent-Length: 7", 7),
        (b"Content-Length: 7\nContent-Length: 8", "a malformed Content-Length"),
        (b"Content-Length: 7, 7", "a malformed Content-Length"),
        (b"Content-Length: -1", "a malformed Content-Length"),
        (b"Content-Length: 9223372036854775807", http1.LENGTH_LIMIT),
        (b"Content-Length: 9223372036854775808", "a malformed Content-Length"),
        (b"Content-Length: 1" + b"0" * 5000, "a malformed Content-Length"),
        (b"Transfer-Encoding: Chunked", http1.CHUNKED),
        (b"Transfer-Encoding: chunked\nContent-Length: 7", http1.CHUNKED),
        (b"Transfer-Encoding: gzip", "a transfer encoding other than chunked"),
        (
            b"Transfer-Encoding: gzip\nTransfer-Encoding: chunked",
            "a transfer encoding other than chunked",
        ),
    ],
)
def test_the_headers_frame_a_request(headers: bytes, framing: int | str) -> None:
    """Chunks win over a length, equal lengths are one, and no length is none."""
    head = http1.parse_head(b"POST / HTTP/1.1\n" + headers + b"\n\n")
    assert http1.request_framing(head.headers, b"HTTP/1.1") == framing


def test_http_1_0_knows_no_chunks() -> None:
    """HTTP/1.0 with a Transfer-Encoding goes by its Content-Length."""
    told = request(
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"0\r\n"
    )
    assert told.request.body.captured == b"0\r\n"


@pytest.mark.parametrize(
    ("status", "method", "framing"),
    [
        (200, b"GET", 5),
        (200, b"HEAD", 0),
        (100, b"GET", 0),
        (204, b"GET", 0),
        (304, b"GET", 0),
    ],
)
def test_some_answers_never_have_a_body(status: int, method: bytes, framing: int) -> None:
    """To HEAD, and with 1xx, 204 and 304, a Content-Length tells of no body."""
    headers = ((b"Content-Length", b"5"),)
    assert http1.response_framing(headers, b"HTTP/1.1", status, method) == framing


def test_an_answer_without_a_length_goes_on_until_close() -> None:
    """The daemon's end completes such a body."""
    told = reply(b"HTTP/1.1 200 OK\r\n", b"all of it")
    assert (captured(told), told.broken) == (b"all of it", "")


def test_chunks_win_over_a_length() -> None:
    """A body with both framings is read by its chunks."""
    told = request(
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        chunks([b"hello"]),
    )
    assert told.request.body.captured == b"hello"


def test_an_empty_chunk_size_ends_a_body() -> None:
    """Go 1.19 takes an empty chunk size for zero."""
    told = reply(CHUNKED, b"2\r\nhi\r\n\r\n\r\n")
    assert (captured(told), told.broken) == (b"hi", "")


def test_trailers_follow_the_last_chunk() -> None:
    """Trailers are kept apart from headers."""
    told = reply(CHUNKED, b"0\r\nDigest: x\r\nA: b\r\n\r\n")
    assert told.response is not None
    assert told.response.trailers == (("Digest", "x"), ("A", "b"))


@pytest.mark.parametrize(
    ("body", "rest", "why"),
    [
        (b"xyz\r\nhi", b"xyz\r\nhi", "a malformed chunk size"),
        (b"1" * 17 + b"\n", b"1" * 17 + b"\n", "a malformed chunk size"),
        (b"2\r\nhiXX", b"hiXX", "a chunk without its end"),
        (b"2\r\nhi\rX", b"hi\rX", "a chunk without its end"),
        (b"2\r\nhiX\n", b"hiX\n", "a chunk without its end"),
        (b"1;" + b"x" * 4095, b"1;" + b"x" * 4095, "a chunk-size line that is too long"),
    ],
)
def test_what_is_no_chunk_is_kept_as_it_came(body: bytes, rest: bytes, why: str) -> None:
    """From where chunks cannot be followed, all bytes are the body's."""
    told = reply(CHUNKED, body)
    assert captured(told) == rest
    assert told.broken == f"{WHY}; the answer could not be followed: {why}"


def test_trailers_have_a_limit() -> None:
    """Trailers that never end are given out as data."""
    reader = http1.Reader()
    reader.expect(http1.CHUNKED)
    endless = b"A: " + b"b" * http1.HEAD_LIMIT
    reader.receive(b"0\r\n" + endless)
    assert read(reader) == [http1.Garbled("trailers too long"), http1.Data(endless)]


def test_a_head_has_a_limit() -> None:
    """A head may be over 1 MiB long, but not without end."""
    reader = http1.Reader()
    start = b"GET / HTTP/1.1\nA: "
    longest = start + b"a" * (http1.HEAD_LIMIT - len(start) - 2) + b"\n\n"
    reader.receive(longest[:-1])
    assert read(reader) == []
    reader.receive(b"\n")
    assert [type(item) for item in read(reader)] == [http1.Head]
    reader.restart()
    reader.receive(b"a" + longest)
    assert read(reader) == [
        http1.Garbled("a head that is too long"),
        http1.Data(b"a" + longest),
    ]


def test_a_head_of_too_many_lines_is_not_read() -> None:
    """Ten thousand headers are read; more lines than anybody sends would keep others waiting."""
    reader = http1.Reader()
    most, over = (b"GET / HTTP/1.1\r\n" + b"a:\n" * n + b"\n" for n in (19_998, 19_999))
    reader.receive(most)
    (head,) = read(reader)
    assert isinstance(head, http1.Head)
    assert len(head.headers) == 19_998
    reader.expect(0)
    reader.receive(over)
    assert read(reader) == [
        http1.End(),
        http1.Garbled("a head of too many lines"),
        http1.Data(over),
    ]


def test_trailers_of_too_many_lines_are_not_read() -> None:
    """The same holds for what follows a body."""
    reader = http1.Reader()
    reader.expect(http1.CHUNKED)
    trailers = b"a:\n" * 20_000 + b"\n"
    reader.receive(b"0\r\n" + trailers)
    assert read(reader) == [http1.Garbled("trailers of too many lines"), http1.Data(trailers)]


def test_half_a_head_waits() -> None:
    """A head comes out whole, however its bytes came in."""
    reader = http1.Reader()
    for piece in (b"A", b"\r\n", b"B: c\r", b"\n\r"):
        reader.receive(piece)
        assert read(reader) == []
    reader.receive(b"\nrest")
    assert [type(item) for item in read(reader)] == [http1.Head]
    assert reader.take() == b"rest"


@pytest.mark.parametrize("ends", [b"\r\n", b"\r\n\r\n", b"\n\n\n\n"])
def test_line_ends_after_a_post_do_not_matter(ends: bytes) -> None:
    """Up to four CR or LF after a POST's body are passed over, as Go's server does."""
    post = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
    told = talk(">>", post + ends + GET, "<<", OK + OK).finished
    assert [t.request.method for t in told] == ["POST", "GET"]


def test_a_fifth_line_end_does_matter() -> None:
    """What Go would take for a request line is taken for one."""
    post = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"
    told = talk(">>", post + b"\r\n\r\n\r\n" + GET, "<<", OK + OK, "||").finished
    assert [t.request.method for t in told] == ["POST", "?"]


def test_a_reader_knows_where_it_stands() -> None:
    """Between messages it is idle; within one it can say what is missing."""
    reader = http1.Reader()
    assert reader.idle
    reader.receive(b"GET")
    assert (reader.idle, reader.pending, reader.doing) == (False, 3, "head, after 3 bytes")
    assert (reader.startswith(b"GE"), reader.startswith(b"GETS")) == (True, False)
    reader.receive(b" / HTTP/1.1\n\n12")
    read(reader)
    reader.expect(5)
    read(reader)
    assert reader.doing == "body, 3 bytes short"
    reader.expect(http1.UNTIL_CLOSE)
    assert (reader.doing, reader.end(), reader.end(), reader.idle) == ("body", True, False, True)


def test_who_gave_up_reads_no_more() -> None:
    """After giving up, whatever comes is data."""
    reader = http1.Reader()
    reader.give_up()
    reader.receive(GET)
    assert read(reader) == [http1.Data(GET)]


def test_pipelined_answers_are_told_apart() -> None:
    """Messages that come in one read are as many messages."""
    assert statuses(talk(">>", GET + GET, "<<", OK + OK).finished) == [200, 200]


@settings(deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    cuts=st.lists(st.integers(1, 60), max_size=12),
)
def test_chunks_decode_to_what_was_encoded(pieces: list[bytes], cuts: list[int]) -> None:
    """Any body in any chunks, read in any pieces, comes out the same."""
    wire = chunks(pieces)
    reader = http1.Reader()
    reader.expect(http1.CHUNKED)
    items: list[http1.Item] = []
    for cut in [*cuts, len(wire)]:
        reader.receive(wire[:cut])
        wire = wire[cut:]
        items += read(reader)
    assert items.pop() == http1.End()
    assert b"".join(item.data for item in items if isinstance(item, http1.Data)) == b"".join(pieces)
    assert reader.idle


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from([0, 9, -1, -2]))
def test_no_byte_is_lost_to_garbage(pieces: list[bytes], framing: int) -> None:
    """A body of anything is read without an error, and never grows."""
    reader = http1.Reader()
    reader.expect(framing)
    size = 0
    for piece in pieces:
        reader.receive(piece)
        for item in read(reader):
            size += len(item.data) if isinstance(item, http1.Data) else 0
    assert size <= len(b"".join(pieces))


# -- in any pieces, at a bounded cost


def items(framing: int, *chunks: bytes) -> list[http1.Item]:
    """What a reader makes of these bytes; pieces of data that follow each other are one."""
    reader = http1.Reader()
    told: list[http1.Item] = []
    for chunk in chunks:
        reader.receive(chunk)
        while (item := reader.next()) is not None:
            if isinstance(item, http1.Head):
                reader.expect(framing)
            last = told[-1] if told else None
            if isinstance(item, http1.Data) and isinstance(last, http1.Data):
                told[-1] = http1.Data(last.data + item.data)
            else:
                told.append(item)
    return told


def test_a_head_in_small_pieces_costs_no_more_towards_its_end() -> None:
    """A byte of a head is looked at a fixed number of times: no search begins again."""
    reader = http1.Reader()
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
    few, many = (b"GET / HTTP/1.1\r\nA: b\n" + line * count for count in (5_000, 40_000))
    assert cost(lambda: http1.parse_head(many)) < 32 * cost(lambda: http1.parse_head(few))


@pytest.mark.parametrize("line", [b"G" + b" " * 500_000, b" " * 500_000, b"G /" + b" H" * 250_000])
def test_a_start_line_is_read_in_linear_time(line: bytes) -> None:
    """No start line of any length makes the reader try again and again."""
    assert http1.request_line(line) is None
    assert http1.status_line(b"HTTP/1.1" + line) is None


def test_a_line_folded_onto_a_long_value_costs_no_more() -> None:
    """Joining folded lines does not copy what was joined before."""
    head, folds = b"GET / HTTP/1.1\r\nA: ", b"\n b" * 4000
    short, long = (head + b"a" * size + folds for size in (1, 500_000))
    assert cost(lambda: http1.parse_head(long)) < 8 * cost(lambda: http1.parse_head(short))


def test_a_chunk_size_with_a_stray_cr() -> None:
    """White space after a chunk's size does not matter, as Go's chunked.go trims it."""
    ended = [http1.Data(b"a"), http1.End()]
    assert items(http1.CHUNKED, GET + b"1 \t\r\r\na\r\n0\r\n\r\n")[1:] == ended


def test_a_length_with_a_stray_cr() -> None:
    """Lengths are trimmed before they are compared, as Go's transfer.go does."""
    headers = ((b"Content-Length", b"5"), (b"Content-Length", b"5\r"))
    assert http1.request_framing(headers, b"HTTP/1.1") == 5


MESSY = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n\r\n", b" ", b":", b"0", b"5", b"a;", b"HTTP/1.1"])
    | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


@settings(deadline=None)
@given(st.data(), MESSY, st.sampled_from([0, 3, http1.CHUNKED, http1.UNTIL_CLOSE]))
def test_pieces_do_not_matter(given: st.DataObject, raw: bytes, framing: int) -> None:
    """No bytes can make it fail, and it does not matter how they are cut."""
    whole = items(framing, raw)
    assert items(framing, *given.draw(pieces(raw))) == whole
    assert items(framing, *(bytes([byte]) for byte in raw)) == whole
