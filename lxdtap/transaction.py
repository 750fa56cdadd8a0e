"""The values that everything else speaks of: a transaction and its parts.

None of them changes: what the log was given stays as it was. Text from the wire is
``str`` decoded by :func:`decode`, which loses nothing: :func:`encode` gives the bytes back.
Times are in nanoseconds: ``monotonic`` ones for durations, ``wall`` ones (Unix time) for display.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

Headers = tuple[tuple[str, str], ...]
"""Name and value pairs in the order and spelling of the wire."""


def decode(raw: bytes) -> str:
    """Wire bytes as text; bytes that are not UTF-8 survive as lone surrogates."""
    return raw.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The wire bytes of a text that :func:`decode` made."""
    return text.encode("utf-8", "surrogateescape")


def header(headers: Headers, name: str) -> str | None:
    """A header's first value, whatever the case of its name (RFC 9110, 5.1); None if absent."""
    wanted, size = name.lower(), len(name)
    for key, value in headers:
        if len(key) == size and key.lower() == wanted:
            return value
    return None


class Direction(enum.Enum):
    """Which way bytes went, as the client sees it."""

    SENT = "sent"
    RECEIVED = "received"


SENT, RECEIVED = Direction
"""The same where it is asked for each message: to look into an enumeration takes 0.07 µs."""


class Moment(NamedTuple):
    """One reading of both clocks, in nanoseconds."""

    monotonic: int
    wall: int


class Peer(NamedTuple):
    """Who is at the client's end of a connection (unix(7), SO_PEERCRED and SO_PEERGROUPS)."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """The supplementary ones."""


class Body(NamedTuple):
    """A payload as it was carried, without the framing of chunks.

    ``captured`` is its beginning, ``size`` the count of all its bytes. ``digest`` is the SHA-256
    of all of them in hexadecimal, filled in by the capture where not all were kept.
    """

    size: int = 0
    captured: bytes = b""
    digest: str = ""

    @property
    def whole(self) -> bool:
        """Whether every byte was kept."""
        return len(self.captured) == self.size

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes, in hexadecimal."""
        return self.digest or hashlib.sha256(self.captured).hexdigest()


EMPTY = Body()


CAPTURE = 4 << 20
"""Bytes of a body that are usually kept; larger ones are counted and hashed."""


class Capture:
    """Takes a payload in pieces and keeps its first ``limit`` bytes; counts and hashes the rest."""

    __slots__ = ("_hash", "_kept", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self._limit = limit
        self._kept = bytearray()
        self._hash: hashlib._Hash | None = None

    def add(self, data: bytes | memoryview) -> None:
        """Take the next piece; what is kept of it is a copy."""
        room = self._limit - self.size
        if self._hash is None and len(data) > room:
            # Only now is it certain that not all can be kept: hash what was, and go on.
            self._hash = hashlib.sha256(self._kept)
        if self._hash is not None:
            self._hash.update(data)
        if room > 0:
            self._kept += data[:room]
        self.size += len(data)

    def skip(self, size: int) -> None:
        """Count bytes that are known of, and not known."""
        self.size += size
        self._limit = 0

    def body(self, digest: str = "") -> Body:
        """What has been taken until now.

        Args:
            digest: the SHA-256 of all of it, where that is known from elsewhere.
        """
        if not self.size:
            return EMPTY
        known = digest or (self._hash.hexdigest() if self._hash else "")
        return Body(self.size, bytes(self._kept), known)


class Request(NamedTuple):
    """What the client asked.

    ``target`` is as sent, usually ``/1.0/…`` with its query. ``garbled`` says why the request
    could not be read as HTTP; the raw bytes are then its body.
    """

    method: str
    target: str
    version: str = "HTTP/1.1"
    headers: Headers = ()
    body: Body = EMPTY
    trailers: Headers = ()
    garbled: str = ""

    @property
    def path(self) -> str:
        """The target without its query, nor scheme and host where it has them."""
        path = self.target.partition("?")[0]
        if _absolute(path):
            path = "/" + path.partition("://")[2].partition("/")[2]
        return path


class Response(NamedTuple):
    """What the daemon answered. ``interim`` holds the 1xx statuses that came first."""

    status: int
    reason: str = ""
    version: str = "HTTP/1.1"
    headers: Headers = ()
    body: Body = EMPTY
    trailers: Headers = ()
    interim: tuple[int, ...] = ()


class Opcode(enum.IntEnum):
    """The kinds of websocket frame (RFC 6455, 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10

    @property
    def control(self) -> bool:
        """Whether it steers the connection rather than carrying data (RFC 6455, 5.5)."""
        return self >= Opcode.CLOSE


class Frame(NamedTuple):
    """One websocket frame, unmasked and decompressed; more fragments follow where not ``final``."""

    opcode: Opcode
    payload: Body
    final: bool = True


class Count(NamedTuple):
    """How much data went one way on an upgraded connection; ``frames`` is 0 where it has none.

    A websocket's control frames are not data, and not counted.
    """

    frames: int = 0
    size: int = 0


NOTHING = Count()


class Tunnel(NamedTuple):
    """A connection that stopped being HTTP: ``websocket``, ``sftp``, ``tls`` or ``opaque``.

    ``opaque`` is one whose bytes could not be followed; ``reason`` then says why.
    ``close_code`` is the websocket's, where a Close frame gave one (RFC 6455, 7.4); ``ended``
    says who closed the connection, once somebody has.
    """

    protocol: str
    sent: Count = NOTHING
    received: Count = NOTHING
    close_code: int | None = None
    reason: str = ""
    ended: str = ""


class Timing(NamedTuple):
    """When things happened; monotonic nanoseconds, but for ``wall``. None: not until now."""

    wall: int
    begun: int
    sent: int | None = None
    answered: int | None = None
    ended: int | None = None

    def duration(self, now: int | None = None) -> float:
        """Seconds from the request's head to the end, or to ``now`` while it goes on."""
        end = self.ended if self.ended is not None else now
        return max(0, (end if end is not None else self.begun) - self.begun) / 1e9

    @property
    def waited(self) -> float | None:
        """Seconds from the request's head to the response's; None before there is one."""
        return None if self.answered is None else max(0, self.answered - self.begun) / 1e9


class Transaction(NamedTuple):
    """One request and all that came of it.

    ``number`` counts from 1 in the order in which requests began. ``base`` is the daemon's own
    address, such as ``http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket``. ``broken`` says what broke
    it off, and is empty where nothing did. ``own`` marks an answer that lxdtap gave itself.
    """

    number: int
    base: str
    request: Request
    timing: Timing
    response: Response | None = None
    tunnel: Tunnel | None = None
    peer: Peer | None = None
    connection: int = 0
    broken: str = ""
    own: bool = False

    @property
    def url(self) -> str:
        """The daemon's address and the target, as the DEBUG text shows them."""
        target = self.request.target
        return target if _absolute(target.partition("?")[0]) else self.base + target


def _absolute(path: str) -> bool:
    """Whether a target is in absolute-form (RFC 9112, 3.2.2)."""
    return "://" in path and not path.startswith("/")


@dataclass(frozen=True, slots=True)
class Finished:
    """A transaction came to its end."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The daemon agreed to leave HTTP: the transaction until then; at its end it is Finished."""

    transaction: Transaction


@dataclass(frozen=True, slots=True)
class Open:
    """A transaction has been on the wire for a while; ``now`` is monotonic nanoseconds."""

    transaction: Transaction
    now: int


@dataclass(frozen=True, slots=True)
class FrameSeen:
    """A frame passed on an upgraded connection, the one of transaction ``number``."""

    number: int
    direction: Direction
    frame: Frame
    at: Moment


@dataclass(frozen=True, slots=True)
class BytesSeen:
    """Bytes passed on a connection that left HTTP and has no frames, of transaction ``number``."""

    number: int
    direction: Direction
    data: bytes
    at: Moment


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know about the tap itself, in one line."""

    text: str
    at: Moment


Update = Finished | Upgraded | Open | FrameSeen | BytesSeen | Note
"""What happens to transactions, in the order in which it does."""
