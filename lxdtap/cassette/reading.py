"""A recording from the text of a cassette. Pure.

What is read is checked as it is read, and what is wrong is told of by its line. The format is
described in docs/cassette-format.md, its schema is docs/cassette.schema.json.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any

from lxdtap.cassette import jsontext, scalars
from lxdtap.cassette.cursor import Cursor, Read
from lxdtap.cassette.model import Attachment, Cassette, Interaction, Piece, Server, counts
from lxdtap.transaction import (
    EMPTY,
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
    encode,
)

Values = dict[str, Any]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KINDS = {"lxd": "lxd", "incus": "incus"}
_DIRECTIONS = {direction.value: direction for direction in Direction}
_TYPES: Mapping[str, Opcode | None] = {each.name.lower(): each for each in Opcode} | {"bytes": None}


def read(chunks: Iterable[bytes], attachment: Attachment | None = None) -> Cassette:
    """Read a cassette.

    Args:
        chunks: the bytes of its text.
        attachment: gives what lies beside it; None: such bodies are known by size and hash only.

    Raises:
        CassetteError: it is no cassette, or not the whole of one; in one line, with the place.
    """
    cassette: Cassette = Cursor(chunks).document(_Reader(attachment).cassette)
    return cassette


class _Reader:
    """Reads one cassette: what stands before its interactions, and what goes from one to the next.

    Each version of the format that there ever was keeps its method in ``_versions``; they all come
    to the same values.
    """

    def __init__(self, attachment: Attachment | None) -> None:
        self._bodies = _Bodies(attachment)
        self._base: str | None = None
        self._wall = 0
        self._number = 0
        self._begun = 0
        self._versions = {1: self._first_version}

    def cassette(self, cursor: Cursor) -> Cassette:
        """The whole document. Its version comes first, and tells what may follow."""
        keys = cursor.keys("a cassette")
        if next(keys, "") != "version":
            cursor.fail("a cassette begins with its version: is this one of lxdtap's?")
        version = cursor.integer()
        if version not in self._versions:
            cursor.fail(f"version {version} is not known to this lxdtap: use a newer one")
        return self._versions[version](cursor, keys)

    # -- version 1

    def _first_version(self, cursor: Cursor, keys: Iterator[str]) -> Cassette:
        fields: Mapping[str, Read] = {
            "recorded_with": _string,
            "recorded_at": self._recorded_at,
            "server": self._server,
            "interactions": self._interactions,
            "complete": Cursor.boolean,
        }
        values: Values = {}
        for key in keys:
            if key not in fields:
                cursor.fail(f"{key[:40]!r} is no key of a cassette: use one of {', '.join(fields)}")
            if "interactions" in values and (key != "complete" or "complete" in values):
                cursor.fail(f"a cassette ends with its interactions and complete: move {key} up")
            values[key] = fields[key](cursor)
        for key in ("interactions", "complete"):
            if key not in values:
                cursor.fail(f"it has been cut off, there is no {key}: take it from a copy")
        return Cassette(
            values["server"],
            values["interactions"],
            values.get("recorded_with", ""),
            self._wall,
            values["complete"],
        )

    def _recorded_at(self, cursor: Cursor) -> None:
        self._wall = cursor.parsed(scalars.from_timestamp)

    def _server(self, cursor: Cursor) -> Server:
        values = cursor.mapping("a server", _SERVER, ("kind", "address"))
        self._base = values["address"]
        return Server(values["kind"], values["address"], values.get("version", ""))

    def _interactions(self, cursor: Cursor) -> tuple[Interaction, ...]:
        if self._base is None:
            cursor.fail("the server and its address come before the interactions: add them")
        messages: dict[str, Read] = {"request": self._request, "response": self._response}
        fields = messages | _INTERACTION | {"frames": self._frames}
        return tuple(self._interaction(cursor, fields) for _ in cursor.items("interactions"))

    def _interaction(self, cursor: Cursor, fields: Mapping[str, Read]) -> Interaction:
        values = cursor.mapping("an interaction", fields, ("request",))
        number = values.get("number", self._number + 1)
        if number <= self._number:
            cursor.fail(f"number {number} follows {self._number}: take it out to have it counted")
        self._number = number
        timing = self._timing(values.get("timing", {}))
        pieces = tuple(_piece(each, timing.begun) for each in values.get("frames", ()))
        tunnel = values.get("tunnel")
        transaction = Transaction(
            number,
            values.get("address", self._base),
            values["request"],
            timing,
            values.get("response"),
            None if tunnel is None else _tunnel(tunnel, pieces),
            connection=values.get("connection", 0),
            broken=values.get("broken", ""),
            own=values.get("own", False),
        )
        return Interaction(
            transaction, pieces, values.get("operation", ""), values.get("stream", "")
        )

    def _timing(self, values: Values) -> Timing:
        """What was not told of began with the interaction before."""
        begun = self._begun = values.get("began", self._begun)
        sent, answered, ended = (
            begun + values[key] if key in values else None
            for key in ("sent", "answered", "duration")
        )
        return Timing(self._wall + begun, begun, sent, answered, ended)

    def _request(self, cursor: Cursor) -> Request:
        fields = _REQUEST | {"body": self._bodies.read}
        values = cursor.mapping("a request", fields, ("method", "uri"))
        return Request(
            values["method"],
            values["uri"],
            values.get("version", "HTTP/1.1"),
            values.get("headers", ()),
            values.get("body", EMPTY),
            values.get("trailers", ()),
            values.get("garbled", ""),
        )

    def _response(self, cursor: Cursor) -> Response:
        fields = _RESPONSE | {"body": self._bodies.read}
        values = cursor.mapping("a response", fields, ("status",))
        return Response(
            values["status"]["code"],
            values["status"].get("message", ""),
            values.get("version", "HTTP/1.1"),
            values.get("headers", ()),
            values.get("body", EMPTY),
            values.get("trailers", ()),
            values.get("interim", ()),
        )

    def _frames(self, cursor: Cursor) -> list[Values]:
        return [self._frame(cursor) for _ in cursor.items("frames")]

    def _frame(self, cursor: Cursor) -> Values:
        values: Values = cursor.mapping("a frame", _FRAME, ("direction", "type"))
        values["payload"] = self._bodies.body(cursor, values)
        return values


class _Bodies:
    """Reads bodies, each file but once."""

    def __init__(self, attachment: Attachment | None) -> None:
        self._attachment = attachment
        self._attached: dict[str, Body] = {}

    def read(self, cursor: Cursor) -> Body:
        """A body in a mapping of its own."""
        return self.body(cursor, cursor.mapping("a body", _BODY))

    def body(self, cursor: Cursor, values: Values) -> Body:
        """What the keys of a body among these say."""
        forms = [key for key in ("json", "text", "base64", "file", "sha256") if key in values]
        if len(forms) > 1:
            cursor.fail(f"this has both {forms[0]} and {forms[1]}: take one out")
        if ("size" in values) is not (forms in (["file"], ["sha256"])):
            cursor.fail("size goes with file or sha256, and they with it: complete it")
        if not forms:
            return EMPTY
        value = values[forms[0]]
        if forms == ["file"]:
            return self._file(cursor, value, values["size"])
        if forms == ["sha256"]:
            return Body(values["size"], b"", value)
        return Body(len(value), value) if value else EMPTY

    def _file(self, cursor: Cursor, sha256: str, size: int) -> Body:
        if self._attachment is None:
            return Body(size, b"", sha256)
        if sha256 not in self._attached:
            self._attached[sha256] = self._attach(cursor, sha256)
        body = self._attached[sha256]
        if body.size != size:
            cursor.fail(f"the file {sha256} has {body.size} bytes, not {size}: correct it")
        return body

    def _attach(self, cursor: Cursor, sha256: str) -> Body:
        assert self._attachment is not None
        try:
            data = self._attachment(sha256)
        except LookupError:
            cursor.fail(f"the file {sha256} is not beside the cassette: put it back")
        if hashlib.sha256(data).hexdigest() != sha256:
            cursor.fail(f"the file {sha256} beside the cassette has been altered: put it back")
        return Body(len(data), data) if data else EMPTY


# -- values that need nothing but themselves


def _string(cursor: Cursor) -> str:
    if not cursor.begins_mapping():
        return cursor.text()
    values = cursor.mapping("base64", _BASE64, ("base64",))
    return decode(values["base64"])


def _headers(cursor: Cursor) -> Headers:
    if cursor.begins_mapping():
        return tuple((name, _string(cursor)) for name in cursor.keys("headers"))
    pairs = [
        cursor.mapping("a header", _HEADER, ("name", "value")) for _ in cursor.items("headers")
    ]
    return tuple((pair["name"], pair["value"]) for pair in pairs)


def _json(cursor: Cursor) -> bytes:
    text, line = cursor.block()
    document = text.rstrip("\n")
    try:
        jsontext.check(document)
    except JSONDecodeError as error:
        cursor.fail(f"not JSON: {error.msg}: correct it", line + error.lineno - 1)
    except ValueError as error:
        cursor.fail(f"not JSON: {error}: correct it")
    return (jsontext.compact(document) + text[len(document) :]).encode()


def _text(cursor: Cursor) -> bytes:
    return encode(cursor.text())


def _base64(cursor: Cursor) -> bytes:
    data: bytes = cursor.parsed(scalars.unpacked)
    return data


def _sha256(cursor: Cursor) -> str:
    word = cursor.text()
    if not _SHA256.fullmatch(word):
        cursor.fail(f"{word[:40]!r} is not a SHA-256 in hexadecimal: correct it")
    return word


def _seconds(cursor: Cursor) -> int:
    nanoseconds: int = cursor.parsed(scalars.from_seconds)
    return nanoseconds


def _interim(cursor: Cursor) -> tuple[int, ...]:
    return tuple(cursor.integer() for _ in cursor.items("interim statuses"))


def _piece(values: Values, begun: int) -> Piece:
    return Piece(
        values["direction"],
        values.get("offset", begun),
        values["payload"],
        values["type"],
        values.get("final", True),
    )


def _tunnel(values: Values, pieces: tuple[Piece, ...]) -> Tunnel:
    sent, received = (
        Count(**values[each.value]) if each.value in values else counts(pieces, each)
        for each in (Direction.SENT, Direction.RECEIVED)
    )
    return Tunnel(
        values["protocol"],
        sent,
        received,
        values.get("close_code"),
        values.get("reason", ""),
        values.get("ended", ""),
    )


def _count(cursor: Cursor) -> Values:
    values = cursor.mapping("a count", {"frames": Cursor.integer, "bytes": Cursor.integer})
    return {"frames": values.get("frames", 0), "size": values.get("bytes", 0)}


_BASE64: Mapping[str, Read] = {"base64": _base64}
_HEADER: Mapping[str, Read] = {"name": _string, "value": _string}
_SERVER: Mapping[str, Read] = {
    "kind": lambda cursor: cursor.choice(_KINDS),
    "version": _string,
    "address": _string,
}
_BODY: dict[str, Read] = {
    "json": _json,
    "text": _text,
    "base64": _base64,
    "file": _sha256,
    "size": Cursor.integer,
    "sha256": _sha256,
}
_MESSAGE: dict[str, Read] = {"version": _string, "headers": _headers, "trailers": _headers}
_REQUEST: dict[str, Read] = {"method": _string, "uri": _string} | _MESSAGE | {"garbled": _string}
_STATUS: Mapping[str, Read] = {"code": Cursor.integer, "message": _string}
_RESPONSE: dict[str, Read] = {
    "interim": _interim,
    "status": lambda cursor: cursor.mapping("a status", _STATUS, ("code",)),
} | _MESSAGE
_TIMING: Mapping[str, Read] = dict.fromkeys(("began", "sent", "answered", "duration"), _seconds)
_TUNNEL: Mapping[str, Read] = {
    "protocol": _string,
    "sent": _count,
    "received": _count,
    "close_code": Cursor.integer,
    "reason": _string,
    "ended": _string,
}
_FRAME: Mapping[str, Read] = {
    "direction": lambda cursor: cursor.choice(_DIRECTIONS),
    "offset": _seconds,
    "type": lambda cursor: cursor.choice(_TYPES),
    "final": Cursor.boolean,
} | _BODY
_INTERACTION: dict[str, Read] = {
    "number": Cursor.integer,
    "timing": lambda cursor: cursor.mapping("a timing", _TIMING),
    "connection": Cursor.integer,
    "address": _string,
    "broken": _string,
    "own": Cursor.boolean,
    "operation": _string,
    "stream": _string,
    "tunnel": lambda cursor: cursor.mapping("a tunnel", _TUNNEL, ("protocol",)),
}
