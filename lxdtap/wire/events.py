"""What connections' bytes mean, as they come: the vocabulary between the wire and the fold.

Every event but :class:`Said` names its connection; those of messages also the exchange on it,
counted from 0. All that the log and a recording know is in them.
Events hold raw bytes; :mod:`lxdtap.wire.fold` makes values of them. They are tuples because several
are made for each transaction, while it waits.
"""

from __future__ import annotations

from typing import NamedTuple

from lxdtap.transaction import Direction, Frame, Moment, Peer
from lxdtap.wire.http1 import RawHeaders


class Opened(NamedTuple):
    """A client came. ``base`` is the daemon's address, ``peer`` who it is."""

    connection: int
    at: Moment
    base: str
    peer: Peer | None


class Refused(NamedTuple):
    """The daemon cannot be reached: what is answered is lxdtap's own word. ``reason`` says why."""

    connection: int
    at: Moment
    reason: str


class RequestHead(NamedTuple):
    """A request began. Where it could not be read as one, :class:`Garbled` follows."""

    connection: int
    exchange: int
    at: Moment
    method: bytes
    target: bytes
    version: bytes
    headers: RawHeaders


class ResponseHead(NamedTuple):
    """A response began; a 1xx other than 101 is an interim one, and another follows."""

    connection: int
    exchange: int
    at: Moment
    status: int
    reason: bytes
    version: bytes
    headers: RawHeaders

    @property
    def interim(self) -> bool:
        """Whether the real response is still to come (RFC 9110, 15.2)."""
        return 100 <= self.status < 200 and self.status != 101


class Data(NamedTuple):
    """A piece of a message's body, or of a tunnel that has no frames.

    Where it was read from a record, ``data`` is a view of that: whoever keeps it makes a copy.
    """

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    data: bytes | memoryview


class Skipped(NamedTuple):
    """A piece that was not kept in a recording; ``size`` is its bytes."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    size: int


class Digest(NamedTuple):
    """The SHA-256, in hexadecimal, of a body of which pieces were skipped."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    sha256: str


class MessageEnd(NamedTuple):
    """A request or a response is complete."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    trailers: RawHeaders = ()


class WholeMessage(NamedTuple):
    """A request or a response that came at once.

    ``data`` is its head as it was sent, ``head_size`` bytes of it, and its body without chunks. It
    stands for a head, data and an end (:func:`lxdtap.wire.whole.spelled`).
    """

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    head_size: int
    data: bytes

    @property
    def head(self) -> bytes:
        """All before the body."""
        return self.data[: self.head_size]

    @property
    def body(self) -> bytes:
        """The body; empty where there is none."""
        return self.data[self.head_size :]


class Garbled(NamedTuple):
    """A message cannot be followed from here on; its bytes come as :class:`Data` to the end."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    reason: str


class Switched(NamedTuple):
    """From here on the connection is not HTTP. ``reason`` says why, where nobody asked for it."""

    connection: int
    exchange: int
    at: Moment
    protocol: str
    reason: str = ""


Whole = tuple[int, int, Moment, Direction, int, bytes]
"""The fields of a :class:`WholeMessage`, in order: what is told of most that passes. To make the
event of them, and to take it apart again, takes a twentieth of what a tap does beside others."""


class FrameData(NamedTuple):
    """A websocket frame is complete."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    frame: Frame


class Cut(NamedTuple):
    """One side stopped in the middle of a message; ``doing`` says of which part of it."""

    connection: int
    exchange: int
    at: Moment
    direction: Direction
    doing: str


class Closed(NamedTuple):
    """Nothing more will come on this connection. ``why`` is the relay's word for it."""

    connection: int
    at: Moment
    why: str


class Said(NamedTuple):
    """Something that a person should know about the tap itself, in one line."""

    at: Moment
    text: str


OfExchange = (
    ResponseHead | Data | Skipped | Digest | MessageEnd | Garbled | Switched | FrameData | Cut
)
"""What happens to an exchange that has begun."""

Event = Opened | Refused | RequestHead | WholeMessage | OfExchange | Closed | Said
