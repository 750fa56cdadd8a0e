"""HTTP/1 framing of one direction, from bytes to heads, body pieces and ends.

This reader follows a conversation that two others hold. It is as lenient as Go's ``net/http``,
which is what LXD and Incus speak: bare LF ends a line, folded header lines are joined, any
method goes, header bytes may be anything. It never judges what it can still follow; where it
cannot, it returns :class:`Garbled` once and the rest as :class:`Data`.

The protocol: :meth:`Reader.receive` takes bytes, :meth:`Reader.next` gives the next item or None
for want of bytes. After a :class:`Head` the caller says by :meth:`Reader.expect` how its body is
framed, because for a response that depends on the request (RFC 9112, 6.3).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

RawHeaders = tuple[tuple[bytes, bytes], ...]

HEAD_LIMIT = (1 << 20) + 8192
"""Longest head that is read. Go's ``http.Server`` answers 431 from 1 MiB + 4 KiB on."""
HEAD_LINES = 20_000
"""Most lines of a head that are read: some 25 ms of work, in which nobody else is served."""
CHUNK_LINE_LIMIT = 4095
"""Longest chunk-size line that Go's ``net/http/internal/chunked.go`` accepts, its end included."""
LENGTH_LIMIT = (1 << 63) - 1
"""Greatest Content-Length that Go's ``net/http/transfer.go`` accepts."""
UNTIL_CLOSE = -1
CHUNKED = -2

_EMPTY_LINE = re.compile(rb"\r?\n")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_HEX = re.compile(rb"[0-9A-Fa-f]{0,16}")
_VERSION = re.compile(rb"HTTP/\d\.\d")
_STATUS_LINE = re.compile(rb"(HTTP/\d\.\d) +(\d{3})(?: (.*))?", re.DOTALL)


class Head(NamedTuple):
    """A start line, without its line end, the headers, and all of it as it was sent."""

    start: bytes
    headers: RawHeaders
    raw: bytes


class Data(NamedTuple):
    """A piece of body."""

    data: bytes


class End(NamedTuple):
    """The message is complete."""

    trailers: RawHeaders = ()


class Garbled(NamedTuple):
    """The bytes from here on cannot be followed; they come as :class:`Data`."""

    reason: str


Item = Head | Data | End | Garbled


class _State(enum.Enum):
    HEAD = enum.auto()
    FRAMING = enum.auto()
    COUNTED = enum.auto()
    UNTIL_CLOSE = enum.auto()
    CHUNK_SIZE = enum.auto()
    CHUNK_DATA = enum.auto()
    CHUNK_END = enum.auto()
    TRAILERS = enum.auto()
    RAW = enum.auto()


def parse_head(block: bytes) -> Head:
    """Split a head, its last empty line included or not, into start line and headers."""
    start, *lines = (line.removesuffix(b"\r") for line in block.split(b"\n"))
    fields: list[list[bytes]] = []
    for line in lines:
        if fields and line.startswith((b" ", b"\t")):
            # Obsolete folding (RFC 9112, 5.2), which Go's textproto.Reader joins by one space.
            fields[-1].append(line.strip(b" \t"))
        elif line:
            fields.append([line.rstrip(b" \t")])
    return Head(start, tuple(_field(b" ".join(parts)) for parts in fields), block)


def end_of_head(data: bytes) -> int:
    """Where the head that these bytes begin with ends, its empty line included; 0 if nowhere."""
    match = _END_OF_HEAD.search(data)
    return match.end() if match else 0


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def request_line(start: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and version of a request's start line; None where it is not one."""
    method, _, rest = start.partition(b" ")
    target, space, version = rest.rpartition(b" ")
    if not (method and space and _VERSION.fullmatch(version)):
        return None
    return method, target.strip(b" "), version


def status_line(start: bytes) -> tuple[bytes, int, bytes] | None:
    """Version, status and reason of a response's start line; None where it is not one."""
    match = _STATUS_LINE.fullmatch(start)
    return (match[1], int(match[2]), match[3] or b"") if match else None


def values(headers: RawHeaders, name: bytes) -> list[bytes]:
    """All values of a header, by its lower-case name."""
    return [value for key, value in headers if key.lower() == name]


def request_framing(headers: RawHeaders, version: bytes) -> int | str:
    """How a request's body is framed: a count of bytes, :data:`CHUNKED`, or why it cannot be told.

    As Go's ``transfer.go`` has it: HTTP/1.0 knows no chunks; chunks win over a length.
    """
    framing = _declared(headers, version)
    return 0 if framing is None else framing


def response_framing(headers: RawHeaders, version: bytes, status: int, method: bytes) -> int | str:
    """How a response's body is framed (RFC 9112, 6.3), given the method it answers."""
    if method == b"HEAD" or 100 <= status < 200 or status in (204, 304):
        return 0
    framing = _declared(headers, version)
    return UNTIL_CLOSE if framing is None else framing


def _declared(headers: RawHeaders, version: bytes) -> int | str | None:
    codings = values(headers, b"transfer-encoding")
    if codings and version >= b"HTTP/1.1":
        known = len(codings) == 1 and codings[0].lower() == b"chunked"
        return CHUNKED if known else "a transfer encoding other than chunked"
    lengths = {value.strip(b" \t\r") for value in values(headers, b"content-length")}
    if lengths <= {b""}:
        return None
    length = lengths.pop()
    digits = length.lstrip(b"0") or b"0"  # not long: int() takes its time over long ones
    if lengths or not length.isdigit() or len(digits) > 19 or int(digits) > LENGTH_LIMIT:
        return "a malformed Content-Length"
    return int(digits)


class Reader:
    """Follows the messages of one direction. It holds at most one head and the bytes given last."""

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._scanned = 0
        self._state = _State.HEAD
        self._left = 0
        self._line_ends = 0  # how many before the next head do not matter

    @property
    def idle(self) -> bool:
        """Whether it stands between two messages with nothing of the next."""
        return self._state is _State.HEAD and not self.pending

    @property
    def pending(self) -> int:
        """Bytes received and not yet given out."""
        return len(self._buffer) - self._position

    @property
    def doing(self) -> str:
        """In the middle of what it stands, for a person."""
        if self._state in (_State.HEAD, _State.FRAMING):
            return f"head, after {self.pending} bytes"
        return f"body, {self._left} bytes short" if self._state is _State.COUNTED else "body"

    def startswith(self, prefix: bytes) -> bool:
        """Whether the bytes not yet read begin so."""
        return self._buffer[self._position : self._position + len(prefix)] == prefix

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if not self.pending:
            self._buffer, self._position, self._scanned = data, 0, 0
            return
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        del self._buffer[: self._position]  # cheap: a bytearray only moves its start
        self._scanned = max(self._scanned - self._position, 0)
        self._position = 0
        self._buffer += data

    def take(self) -> bytes:
        """Give up all bytes not yet read, for somebody else to follow."""
        rest = bytes(self._buffer[self._position :])
        self._buffer, self._position = b"", 0
        return rest

    def expect(self, framing: int) -> None:
        """Say how the body after a head is framed: a count, or one of the two constants."""
        self._left = max(framing, 0)
        states = {CHUNKED: _State.CHUNK_SIZE, UNTIL_CLOSE: _State.UNTIL_CLOSE}
        self._state = states.get(framing, _State.COUNTED)

    def restart(self) -> None:
        """What was read was no whole message (an interim response): the next head follows."""
        self._state = _State.HEAD

    def forgive(self, method: bytes) -> None:
        """Pass over up to four CR or LF before the next head, as Go's server.go after a POST."""
        self._line_ends = 4 if method == b"POST" else 0

    def give_up(self) -> None:
        """From here on, give out what comes as raw data."""
        self._state = _State.RAW

    def end(self) -> bool:
        """The stream ended: whether that completes the message (a body until close does)."""
        if self._state is not _State.UNTIL_CLOSE:
            return False
        self._state = _State.HEAD
        return True

    def next(self) -> Item | None:
        """The next item, or None until more bytes are received."""
        return self._STEPS[self._state](self)

    def _head(self) -> Item | None:
        self._skip_line_ends()
        block = self._block()
        if block is None:
            return self._garbled("a head that is too long") if self.pending >= HEAD_LIMIT else None
        if block.count(b"\n") > HEAD_LINES:
            self._position -= len(block)
            return self._garbled("a head of too many lines")
        self._state = _State.FRAMING
        return parse_head(block)

    def _skip_line_ends(self) -> None:
        while self._line_ends and self.pending:
            skipped = self._buffer[self._position] in b"\r\n"
            self._position += skipped
            self._line_ends = self._line_ends - 1 if skipped else 0

    def _framing(self) -> None:
        """Nothing can be read before :meth:`expect`."""

    def _rest(self) -> Data | None:
        return Data(self.take()) if self.pending else None

    def _counted(self) -> Item | None:
        if not self._left:
            self._state = _State.HEAD
            return End()
        return self._piece()

    def _piece(self) -> Data | None:
        if not self.pending:
            return None
        piece = self._buffer[self._position : self._position + self._left]
        self._position += len(piece)
        self._left -= len(piece)
        return Data(bytes(piece))

    def _chunk_size(self) -> Item | None:
        start = self._position
        line = self._line(CHUNK_LINE_LIMIT)
        if line is None:
            too_long = self.pending >= CHUNK_LINE_LIMIT
            return self._garbled("a chunk-size line that is too long") if too_long else None
        size = line.partition(b";")[0].strip(b" \t\r")
        if not _HEX.fullmatch(size):
            self._position = start
            return self._garbled("a malformed chunk size")
        self._left = int(size or b"0", 16)  # as Go 1.19 takes an empty one
        self._state = _State.CHUNK_DATA if self._left else _State.TRAILERS
        return self.next()

    def _chunk_data(self) -> Item | None:
        piece = self._piece()
        if not self._left:
            self._state = _State.CHUNK_END
        return piece

    def _chunk_end(self) -> Item | None:
        start = self._position
        line = self._line(2)
        if line == b"":
            self._state = _State.CHUNK_SIZE
            return self.next()
        self._position = start
        if self._buffer[start : start + 2] in (b"", b"\r"):
            return None
        return self._garbled("a chunk without its end")

    def _trailers(self) -> Item | None:
        block = self._block()
        if block is None:
            return self._garbled("trailers too long") if self.pending >= HEAD_LIMIT else None
        if block.count(b"\n") > HEAD_LINES:
            self._position -= len(block)
            return self._garbled("trailers of too many lines")
        self._state = _State.HEAD
        return End(parse_head(b"\n" + block).headers)

    def _block(self) -> bytes | None:
        """Lines up to the next empty one, and that; None until it has come, or if it is too far."""
        limit = self._position + HEAD_LIMIT
        match = _EMPTY_LINE.match(self._buffer, self._position)
        if match is None:
            start = max(self._position, self._scanned - 2)
            match = _END_OF_HEAD.search(self._buffer, start, limit)
        if match is None:
            self._scanned = len(self._buffer)
            return None
        block = bytes(self._buffer[self._position : match.end()])
        self._position = match.end()
        return block

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\n", self._position, self._position + limit)
        if end < 0:
            return None
        line = bytes(self._buffer[self._position : end])
        self._position = end + 1
        return line.removesuffix(b"\r")

    def _garbled(self, reason: str) -> Garbled:
        self._state = _State.RAW
        return Garbled(reason)

    _STEPS: ClassVar[Mapping[_State, Callable[[Reader], Item | None]]] = {
        _State.HEAD: _head,
        _State.FRAMING: _framing,
        _State.COUNTED: _counted,
        _State.UNTIL_CLOSE: _rest,
        _State.CHUNK_SIZE: _chunk_size,
        _State.CHUNK_DATA: _chunk_data,
        _State.CHUNK_END: _chunk_end,
        _State.TRAILERS: _trailers,
        _State.RAW: _rest,
    }
