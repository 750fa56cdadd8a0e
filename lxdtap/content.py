"""What a body says: JSON, text, parts or plain bytes, whatever it was packed in.

Only what was kept whole is unpacked, and only up to :data:`UNPACKED_LIMIT`.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass

from lxdtap.transaction import Body, Headers, decode, header

UNPACKED_LIMIT = 4 << 20
"""Bytes to which a compressed body may grow."""
TEXT_LIMIT = 64 << 10
"""Bytes of text that are shown; a longer one is described."""
DEEPEST = 100
"""Levels of nesting in JSON that are followed; LXD's documents have about ten."""

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document."""

    value: Json


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
    media_type = _media_type(headers)
    if media_type.startswith("multipart/"):
        parts = _parts(body, header(headers, "content-type") or "")
        if parts:
            return Parts(parts, body.size, body.sha256, media_type)
    unpacked = _unpack(body, header(headers, "content-encoding"))
    if unpacked is not None:
        content = _legible(unpacked, media_type)
        if content is not None:
            return content
    return Binary(body.size, body.sha256, media_type, body.captured)


def document(data: bytes) -> Document | None:
    """The JSON document in these bytes.

    None where it is not one that its own re-indented text would say again: repeated keys,
    NaN, numbers out of range, nesting deeper than :data:`DEEPEST`.
    """
    if data.count(b"[") + data.count(b"{") > DEEPEST and _depth(data) > DEEPEST:
        return None
    try:
        value = json.loads(
            data, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite
        )
    except ValueError:
        return None
    return Document(value)


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is out of range")
    return value


_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


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


def _media_type(headers: Headers) -> str:
    given = (header(headers, "content-type") or "").partition(";")[0].strip().lower()
    return given if _MEDIA_TYPE.fullmatch(given) else ""


def _unpack(body: Body, coding: str | None) -> bytes | None:
    """The bytes without their Content-Encoding; None where that cannot be had."""
    if not body.whole:
        return None
    if (coding or "identity").lower() == "identity":
        return body.captured
    if (coding or "").lower() not in ("gzip", "x-gzip", "deflate"):
        return None
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip and zlib are told apart by zlib
    try:
        plain = stream.decompress(body.captured, UNPACKED_LIMIT)
    except zlib.error:
        return None
    return plain if stream.eof else None


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
    """The parts in what was kept; the last may be cut."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        return ()
    boundary = b"--" + (match[1] or match[2]).encode("utf-8", "surrogateescape")
    # A boundary stands at a line's beginning; the line end before it is its own (RFC 2046, 5.1.1).
    pieces = re.split(rb"(?:\A|\r?\n)" + re.escape(boundary), body.captured)
    found = []
    for index, piece in enumerate(pieces[1:], start=1):
        if piece.startswith(b"--"):
            break
        found.append(_part(piece, cut=index == len(pieces) - 1))
    return tuple(found)


def _part(piece: bytes, *, cut: bool) -> Part:
    head, _, data = piece.partition(b"\r\n\r\n")
    headers = tuple(
        (decode(name), decode(value.strip()))
        for name, colon, value in (line.partition(b":") for line in head.split(b"\r\n"))
        if colon
    )
    return Part(headers, read(Body(len(data), data), headers), cut)
