"""Conversations made up from the grammar of HTTP and of websockets, and what they come to.

What they come to follows from how they were made, and not from anybody's reading of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from .pieces import Word, Words
from .tunnels import frame


class Made(NamedTuple):
    """A transaction as it was made: in short, and both bodies."""

    short: str
    sent: bytes = b""
    received: bytes = b""


class Exchange(NamedTuple):
    """A request and what is answered."""

    request: bytes
    answer: bytes
    made: Made


class Conversation(NamedTuple):
    """Words, and the transactions that they are."""

    words: Words
    made: tuple[Made, ...]


class _Message(NamedTuple):
    raw: bytes
    body: bytes


_TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=6)
_TARGETS = st.one_of(
    st.sampled_from(["/", "/1.0", "/1.0/instances?recursion=1", "*", "http://lxd/1.0", "lxd:8443"]),
    st.text("abc/?&=%;:@.~ä\xff", max_size=30).map(lambda text: "/" + text),
)
_METHODS = st.sampled_from(["GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
_STATUSES = st.sampled_from([200, 201, 202, 204, 206, 301, 304, 400, 403, 404, 412, 500, 599, 999])
_BODIES = st.binary(max_size=60) | st.sampled_from(
    [b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", b"{}\n"]
)
_INTERIM = st.sampled_from(
    [
        b"",
        b"",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
    ]
)
_VALUES = st.binary(max_size=24).map(lambda raw: raw.translate(None, b"\n\0").strip())
_FIELDS = st.one_of(
    st.just(()),
    st.sampled_from([(b"Connection: keep-alive",), (b"X:",), (b"X: a", b"\tfolded", b"X: b")]),
    st.tuples(st.builds(lambda name, value: b"X-%s: %s" % (name.encode(), value), _TOKEN, _VALUES)),
)
"""Headers that have nothing to do with framing."""
_LINE_ENDS = st.sampled_from([(b"\r\n",), (b"\r\n",), (b"\n",), (b"\n", b"\r\n")])


@st.composite
def _head(draw: st.DrawFn, start: bytes, fields: Sequence[bytes]) -> bytes:
    """A head, its lines ended in one way or both."""
    ends = itertools.cycle(draw(_LINE_ENDS))
    others = draw(_FIELDS)
    ours = (*fields, *others) if draw(st.booleans()) else (*others, *fields)
    return b"".join(line + next(ends) for line in (start, *ours, b""))


@st.composite
def _chunks(draw: st.DrawFn) -> _Message:
    """A body in chunks, with extensions and trailers now and then."""
    (end, *_) = draw(_LINE_ENDS)
    extension = draw(st.sampled_from([b"", b"", b";a", b';a="b c"', b" ;x=y"]))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    sizes = draw(st.sampled_from([b"%x", b"%X", b"%04x"]))
    trailers = draw(st.sampled_from([b"", b"", b"X: a\r\n", b"X: a\nY: b\r\n"]))
    raw = b"".join(sizes % len(piece) + extension + end + piece + end for piece in pieces)
    return _Message(raw + sizes % 0 + extension + end + trailers + end, b"".join(pieces))


@st.composite
def _message(draw: st.DrawFn, start: bytes, fields: Sequence[bytes] = ()) -> _Message:
    """A head that begins so, and a body that is framed in one of the ways."""
    framing = draw(st.sampled_from(["length", "length", "chunks", "both"]))
    if framing == "length":
        body = draw(_BODIES)
        head = draw(_head(start, [*fields, b"Content-Length: %d" % len(body)]))
        return _Message(head + body, body)
    chunks = draw(_chunks())
    coding = draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"]))
    lengths = [b"Content-Length: 7"] if framing == "both" else []
    return _Message(draw(_head(start, [*fields, *lengths, coding])) + chunks.raw, chunks.body)


@st.composite
def _bodiless(draw: st.DrawFn, start: bytes, fields: Sequence[bytes] = ()) -> _Message:
    return _Message(draw(_head(start, fields)), b"")


@st.composite
def requests(draw: st.DrawFn, method: str, target: str) -> _Message:
    """A request that can be read; with a body or without."""
    start = f"{method} {target} HTTP/1.1".encode()
    return draw((_message if draw(st.booleans()) else _bodiless)(start, [b"Host: lxd"]))


@st.composite
def exchanges(draw: st.DrawFn, *, last: bool = False) -> Exchange:
    """A request, and an answer to it that ends by itself; the last may end with the connection."""
    method, status = draw(_METHODS | _TOKEN), draw(_STATUSES)
    asked = draw(requests(method, draw(_TARGETS)))
    answered = draw(_answer(method, status, last=last))
    made = Made(f"{method} {status}", asked.body, answered.body)
    return Exchange(asked.raw, answered.raw, made)


@st.composite
def _answer(draw: st.DrawFn, method: str, status: int, *, last: bool) -> _Message:
    start = b"HTTP/1.1 %d%s" % (status, draw(st.sampled_from([b" OK", b" ", b"", b" N\xf6"])))
    if method == "HEAD" or status in (204, 304):
        answer = draw(_bodiless(start, draw(st.sampled_from([[], [b"Content-Length: 120"]]))))
    elif last and draw(st.booleans()):
        body = draw(_BODIES)
        answer = _Message(draw(_head(start, [])) + body, body)
    else:
        answer = draw(_message(start))
    return _Message(draw(_INTERIM) + answer.raw, answer.body)


@st.composite
def _refusals(draw: st.DrawFn) -> Exchange:
    """An upgrade that is not granted."""
    start = b"GET /1.0/events HTTP/1.1"
    asked = draw(_head(start, [b"Connection: Upgrade", b"Upgrade: websocket"]))
    answered = draw(_message(b"HTTP/1.1 403 No"))
    return Exchange(asked, answered.raw, Made("GET 403", b"", answered.body))


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames of all kinds, masked and not, in one go."""
    first = st.sampled_from([0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xF2])
    mask = st.sampled_from([b"", b"abcd", b"\0\0\0\0", b"\xff\x00\xff\x00"])
    payload = st.binary(max_size=20) | st.sampled_from([b"", b"a" * 126, b"\x03\xe8", b"a" * 70000])
    each = st.builds(lambda f, p, m: frame(f, p, mask=m), first, payload, mask)
    return b"".join(draw(st.lists(each, max_size=6)))


@st.composite
def _upgrade(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, Made]:
    """An upgrade: what asks for it, what grants it, what may follow it, and what it is."""
    protocol = draw(st.sampled_from(["websocket", "websocket", "sftp", "tcp"]))
    fields = [b"Connection: Upgrade", b"Upgrade: " + protocol.encode()]
    asked = draw(_head(b"GET /1.0/x HTTP/1.1", fields))
    granted = draw(_head(b"HTTP/1.1 101 Switching Protocols", fields))
    follows = draw(frames()) if protocol == "websocket" else draw(st.binary(max_size=200))
    return asked, granted, follows, Made(f"GET 101 {protocol}")


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Some bytes cut in arbitrary places; none of the pieces is empty."""
    cuts = draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=6))
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[i:j] for i, j in itertools.pairwise(places) if i < j]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Requests in batches, each batch pipelined and answered; then perhaps an upgrade."""
    words: list[str | bytes] = []
    made: list[Made] = []
    batch = st.lists(exchanges() | exchanges() | _refusals(), min_size=1, max_size=4)
    for held in draw(st.lists(batch, max_size=3)):
        words += [">>", *draw(pieces(b"".join(each.request for each in held)))]
        words += ["<<", *draw(pieces(b"".join(each.answer for each in held)))]
        made += [each.made for each in held]
    if draw(st.booleans()):
        asked, granted, follows, what = draw(_upgrade())
        early, late = draw(_halves(follows))
        words += [">>", *draw(pieces(asked + early)), "<<", *draw(pieces(granted + follows))]
        words += [">>", *draw(pieces(late))]
        made.append(what)
    else:
        last = draw(exchanges(last=True))
        words += [">>", *draw(pieces(last.request)), *draw(st.sampled_from([[], [">|"]]))]
        words += ["<<", *draw(pieces(last.answer))]
        made.append(last.made)
    words += draw(st.sampled_from([["<x"], ["<|"], ["<|", ">|"]]))
    return Conversation(tuple(words), tuple(made))


@st.composite
def _halves(draw: st.DrawFn, data: bytes) -> tuple[bytes, bytes]:
    place = draw(st.integers(0, len(data)))
    return data[:place], data[place:]


# -- no grammar at all


def garbage(bits: Sequence[bytes]) -> st.SearchStrategy[Words]:
    """Parts of what is known to be said, in any order, by anybody, ended in any way."""
    # By number: a strategy's repr has all that it chooses from.
    bit = st.integers(0, len(bits) - 1).map(bits.__getitem__)
    part = st.tuples(bit, st.integers(0, 99), st.integers(0, 99)).map(_part)
    sharp = [b"\r\n", b"\n", b"\r", b" ", b"0\r\n\r\n", b"HTTP/1.1 ", b"\0", b"STARTTLS"]
    speakers: list[Word] = [">>", "<<"]
    word = st.sampled_from(speakers) | bit | part | st.sampled_from(sharp) | st.binary(max_size=9)
    ends = st.sampled_from([(), (">|",), ("<|",), (">x",), ("<x",)])
    return st.builds(
        lambda said, end: (*filter(None, said), *end), st.lists(word, max_size=12), ends
    )


def _part(chosen: tuple[bytes, int, int]) -> bytes:
    bit, left, right = chosen
    return bit[len(bit) * left // 200 : len(bit) * (200 - right) // 200]
