"""Arbitrary recordings, their way to text and back, and what of them the text keeps."""

from __future__ import annotations

import json
from typing import TypeVar

from hypothesis import strategies as st

from lxdtap.cassette import jsontext, reading, writing
from lxdtap.cassette.model import Attachment, Cassette, Interaction, Piece, Server
from lxdtap.transaction import (
    Body,
    Count,
    Direction,
    Headers,
    Opcode,
    Request,
    Response,
    Timing,
    Transaction,
    Tunnel,
    decode,
    header,
)

from .builders import BASE, body

_Message = TypeVar("_Message", Request, Response)

RECORDED_AT = 1_700_000_000_123_456_789
SERVER = Server("lxd", BASE, "5.0.2")

# -- arbitrary ones

_ODD = ("", "null", "NO", "~", "1.5", "0x1f", "2026-01-31", "a: b", "a #b", "- a", "[a]", "é", "=")
_CHARACTERS = st.sampled_from(
    "ab /:#-,{}[]'\"\\&*!|>%@`?~=\t\r\n\0\x1b\x7f\x85\xa0\u2028\ufeff\U0001f600"
)
TEXT = st.sampled_from(_ODD) | st.text(_CHARACTERS, max_size=12) | st.text(max_size=8)
WIRE = TEXT | st.binary(max_size=8).map(decode)
TIME = st.integers(0, 10**19)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
_SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r")])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON in one of the spellings that it may have."""
    text = json.dumps(draw(_JSON), ensure_ascii=draw(st.booleans()), separators=draw(_SEPARATORS))
    return (text + draw(st.sampled_from(["", "\n", "\n\n", "\n\n\n", " "]))).encode()


_LONG = st.sampled_from([b"x" * 200, b"\xff" * 100, b"\0" * 5000, b"a \r\nb\n c\n" * 9])
CONTENTS = st.one_of(
    documents(),
    TEXT.map(str.encode),
    st.lists(TEXT, max_size=4).map("\n".join).map(str.encode),
    st.binary(max_size=20),
    _LONG,
)


@st.composite
def bodies(draw: st.DrawFn) -> Body:
    """A body, whole or not."""
    whole = body(draw(CONTENTS))
    if whole.size and draw(st.integers(0, 9)) == 0:
        return Body(whole.size + 9, whole.captured, whole.sha256)
    return whole


_MEDIA = st.sampled_from(["application/json", "Application/JSON; charset=utf-8", "text/plain"])


@st.composite
def headers(draw: st.DrawFn) -> Headers:
    """Headers, maybe repeated ones, maybe none."""
    found = draw(st.lists(st.tuples(WIRE, WIRE), max_size=3))
    if draw(st.booleans()):
        found.append(("Content-Type", draw(_MEDIA)))
    return tuple(found)


_REQUESTS = st.builds(Request, WIRE, WIRE, WIRE, headers(), bodies(), headers(), TEXT)
_INTERIM = st.lists(st.integers(100, 199), max_size=2).map(tuple)
_RESPONSES = st.builds(
    Response, st.integers(0, 999), WIRE, WIRE, headers(), bodies(), headers(), _INTERIM
)
_COUNTS = st.builds(Count, st.integers(0, 9), st.integers(0, 10**15))
_CODES = st.none() | st.integers(0, 65535)
_TUNNELS = st.builds(Tunnel, TEXT, _COUNTS, _COUNTS, _CODES, TEXT, WIRE)
_PIECES = st.builds(
    Piece,
    st.sampled_from(Direction),
    TIME,
    bodies(),
    st.none() | st.sampled_from(Opcode),
    st.booleans(),
)


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    """Moments after the beginning, or none."""
    begun = draw(TIME)
    later = [draw(st.none() | TIME.map(lambda moment: begun + moment)) for _ in range(3)]
    return Timing(RECORDED_AT + begun, begun, *later)


@st.composite
def interactions(draw: st.DrawFn, number: int) -> Interaction:
    """One interaction."""
    transaction = Transaction(
        number,
        draw(st.just(BASE) | WIRE),
        draw(_REQUESTS),
        draw(timings()),
        draw(st.none() | _RESPONSES),
        draw(st.none() | _TUNNELS),
        connection=draw(st.integers(0, 5)),
        broken=draw(WIRE),
        own=draw(st.booleans()),
    )
    pieces = draw(st.lists(_PIECES, max_size=3))
    return Interaction(transaction, tuple(pieces), draw(WIRE), draw(WIRE))


_KINDS = st.sampled_from(["lxd", "incus"])
_SERVERS = st.just(SERVER) | st.builds(Server, _KINDS, WIRE, WIRE)


@st.composite
def cassettes(draw: st.DrawFn, most: int = 3) -> Cassette:
    """Any recording."""
    numbers = sorted(draw(st.sets(st.integers(1, 9), max_size=most)))
    return Cassette(
        draw(_SERVERS),
        tuple(draw(interactions(number)) for number in numbers),
        draw(WIRE),
        RECORDED_AT,
        draw(st.booleans()),
    )


# -- to text and back


class Shelf:
    """What lies beside a cassette."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def attach(self, of: Body) -> None:
        """Keep a body."""
        self.files[of.sha256] = of.captured

    def __call__(self, sha256: str) -> bytes:
        """Give it back."""
        return self.files[sha256]


def written(cassette: Cassette, shelf: Shelf | None = None) -> str:
    """Its whole text."""
    return "".join(writing.text(cassette, (shelf or Shelf()).attach))


def loaded(text: str | bytes, attachment: Attachment | None = None) -> Cassette:
    """What a text says."""
    return reading.read([text.encode() if isinstance(text, str) else text], attachment)


# -- what is kept


def kept(cassette: Cassette) -> Cassette:
    """A recording without what the format does not keep."""
    return cassette._replace(interactions=tuple(map(_interaction, cassette.interactions)))


def _interaction(interaction: Interaction) -> Interaction:
    told = interaction.transaction
    transaction = told._replace(
        request=_message(told.request), response=told.response and _message(told.response)
    )
    pieces = tuple(each._replace(payload=_body(each.payload)) for each in interaction.pieces)
    return interaction._replace(transaction=transaction, pieces=pieces)


def _message(message: _Message) -> _Message:
    loose = "json" in (header(message.headers, "content-type") or "").lower()
    return message._replace(body=_body(message.body, loose=loose))


def _body(of: Body, *, loose: bool = False) -> Body:
    """The beginning of what was not kept whole is not kept; nor is white space within JSON."""
    if not of.whole:
        return Body(of.size, b"", of.digest)
    if not loose or not _is_json(of.captured.rstrip(b"\n")):
        return body(of.captured)
    text = of.captured.decode()
    document = text.rstrip("\n")
    return body(jsontext.compact(document) + text[len(document) :])


def _is_json(data: bytes) -> bool:
    """Whether it is JSON that is shown as such: nothing in it is invisible."""
    try:
        jsontext.check(data.decode())
    except ValueError:
        return False
    return data.decode().replace("\n", " ").replace("\t", " ").isprintable()
