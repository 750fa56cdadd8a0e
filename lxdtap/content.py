"""What a body says: JSON, text, parts or plain bytes, whatever it was packed in.

Only what was kept whole is unpacked, and only up to :data:`UNPACKED_LIMIT`.
"""

from __future__ import annotations

import functools
import json
import math
import re
import zlib
from dataclasses import dataclass, field
from decimal import Decimal

import orjson

from lxdtap.transaction import Body, Headers, decode, header

UNPACKED_LIMIT = 4 << 20
"""Bytes to which a compressed body may grow."""
TEXT_LIMIT = 64 << 10
"""Bytes of text that are shown; a longer one is described."""
DEEPEST = 100
"""Levels of nesting in JSON that are followed; LXD's documents have about ten."""
BROADEST = 8 << 20
"""Tabs by which JSON may grow when it is indented: its nesting times its lines, roughly."""
LONGEST_NUMBER = 400
"""Characters of a number that is not whole; a double's own text has at most 24."""
MOST_PARTS = 100
"""Parts of a multipart body that are told apart; LXD's images have two."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document. ``compact`` is it without blanks outside of strings, where it came so."""

    value: Json
    compact: bytes = field(default=b"", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Text:
    """Text in UTF-8, as it was sent. ``media_type`` is empty where none was given."""

    text: str
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Binary:
    """Bytes that are only described. ``kept`` are the first of them."""

    size: int
    sha256: str
    media_type: str = ""
    kept: bytes = b""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body. ``cut`` where its end was not kept."""

    headers: Headers
    content: Content
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """A multipart body (RFC 2046, 5.1), such as LXD's split images."""

    parts: tuple[Part, ...]
    size: int
    sha256: str
    media_type: str


Content = Document | Text | Binary | Parts | None
"""None is the empty body."""


def read(body: Body, headers: Headers = ()) -> Content:
    """What a body says, given its message's headers."""
    if not body.size:
        return None
    given = header(headers, "content-type") or ""
    media_type = _media_type(given)
    if media_type.startswith("multipart/"):
        parts = _parts(body, given)
        if parts:
            return Parts(parts, body.size, body.sha256, media_type)
    return _single(body, headers, media_type)


def _single(body: Body, headers: Headers, media_type: str) -> Content:
    if not body.size:
        return None
    unpacked = _unpack(body, header(headers, "content-encoding"))
    if unpacked is not None:
        content = _legible(unpacked, media_type)
        if content is not None:
            return content
    return Binary(body.size, body.sha256, media_type, body.captured)


def document(data: bytes) -> Document | None:
    """The JSON document in these bytes.

    None where it is not one that its own re-indented text would say again: repeated keys,
    NaN, numbers that a double does not hold, nesting deeper than :data:`DEEPEST`; nor where
    indentation would make it many times as long (:data:`BROADEST`).
    """
    brackets = len(data.translate(None, delete=_NO_BRACKETS))
    if brackets > DEEPEST or len(data) > BROADEST // DEEPEST:  # there are more bytes than lines
        depth, lines = _depth(data), brackets + data.count(b",")
        if depth > DEEPEST or depth * lines > BROADEST:
            return None
    try:
        value: Json = orjson.loads(data)
        compact = data.rstrip()
        if orjson.dumps(value) == compact:  # as daemons write it: nothing can be amiss
            return Document(value, compact)
    except (ValueError, TypeError):  # orjson does not take, or make, all that json does
        pass
    try:
        # Strictly: json would also guess UTF-16 and take surrogates.
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, ArithmeticError):  # the latter is Decimal's, for exponents without end
        return None
    return Document(value)


# To count what is left without these takes two thirds of the time that two counts take.
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[{")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _exact(number: str) -> float:
    value = float(number) if len(number) <= LONGEST_NUMBER else math.nan
    if repr(value) == number:
        return value
    # The comparison is of exact values; a zero for what is merely tiny does not pass it.
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(number):
        raise ValueError(f"a double does not hold {number:.40}")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_exact, parse_constant=_exact)

# A string without an end goes on to the end of the data: so each byte is looked at once.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        if match[0] in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif match[0] in (b"]", b"}"):
            depth -= 1
    return deepest


_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)  # RFC 6838, 4.2
_TYPES = 16
"""Content types kept in mind: a daemon's are few."""


@functools.lru_cache(_TYPES)
def _media_type(content_type: str) -> str:
    given = content_type.partition(";")[0].strip().lower()
    return given if _MEDIA_TYPE.fullmatch(given) else ""


def _unpack(body: Body, coding: str | None) -> bytes | None:
    """The bytes without their Content-Encoding; None where that cannot be had."""
    if not body.whole:
        return None
    coding = (coding or "identity").lower()
    if coding == "identity":
        return body.captured
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip and zlib are told apart by zlib
    try:
        plain = stream.decompress(body.captured, UNPACKED_LIMIT)
    except zlib.error:
        return None
    return plain if stream.eof and not stream.unused_data else None


def _legible(data: bytes, media_type: str) -> Document | Text | None:
    if "json" in media_type or (not media_type and data.lstrip()[:1] in (b"{", b"[")):
        found = document(data)
        if found is not None:
            return found
    if len(data) > TEXT_LIMIT or b"\0" in data:
        return None
    try:
        return Text(data.decode("utf-8"), media_type)
    except UnicodeDecodeError:
        return None


_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^\s;,"]+))', re.IGNORECASE)


def _parts(body: Body, content_type: str) -> tuple[Part, ...]:
    """The parts in what was kept, the last maybe cut; none where they cannot be told apart."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return ()
    boundary = b"--" + (match[1] or match[2]).encode("utf-8", "surrogateescape")
    # A boundary stands at a line's beginning; the line end before it is its own (RFC 2046, 5.1.1).
    line = rb"(?:\A|\r?\n)" + re.escape(boundary) + rb"(?=--|[ \t]*\r?\n|\Z)"
    pieces = re.split(line, body.captured, maxsplit=MOST_PARTS + 1)[1:]
    ends = [index for index, piece in enumerate(pieces) if piece.startswith(b"--")]
    whole = len(pieces) - 1  # what follows the last boundary is cut
    pieces = pieces[: ends[0]] if ends else pieces
    if len(pieces) > MOST_PARTS:
        return ()
    return tuple(_part(piece, cut=index == whole) for index, piece in enumerate(pieces))


def _part(piece: bytes, *, cut: bool) -> Part:
    head, _, data = piece.partition(b"\r\n\r\n")
    headers = tuple(
        (decode(name), decode(value.strip()))
        for name, colon, value in (line.partition(b":") for line in head.split(b"\r\n"))
        if colon
    )
    media_type = _media_type(header(headers, "content-type") or "")
    # Parts within a part are not followed: LXD sends none, and their depth has no limit.
    return Part(headers, _single(Body(len(data), data), headers, media_type), cut)
