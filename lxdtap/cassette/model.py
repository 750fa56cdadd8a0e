"""A recording as values: what is written to a cassette, and what is played from one.

Pure. A :class:`Cassette` is made of the same transactions that the log shows. Times in it are
nanoseconds since the recording began, so that one clock orders all of it; ``Timing.wall`` alone is
Unix time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lxdtap.endpoint import Kind
from lxdtap.errors import LxdtapError
from lxdtap.transaction import Body, Count, Direction, Opcode, Transaction

VERSION = 1
"""Of the cassette's format."""
REPLAYABLE = 64 << 20
"""Bytes of a response's body, or of one direction of a tunnel, that are kept to be played again."""
KEPT_OF_REQUESTS = 4 << 20
"""Bytes of a request's body that are kept; of a larger one its size and hash are."""


class CassetteError(LxdtapError):
    """A cassette cannot be read, or not be written where it was asked for."""


class Piece(NamedTuple):
    """What passed at one time on an upgraded connection.

    Attributes:
        direction: which way.
        offset: nanoseconds since the recording began.
        payload: of the websocket frame, or the bytes where the connection has no frames.
        opcode: the frame's kind; None: not a frame.
        final: whether the message ends with it.
    """

    direction: Direction
    offset: int
    payload: Body
    opcode: Opcode | None = None
    final: bool = True


def counts(pieces: tuple[Piece, ...], direction: Direction) -> Count:
    """How much data these pieces are in one direction, as a tunnel counts it."""
    data = [
        piece
        for piece in pieces
        if piece.direction is direction and not (piece.opcode and piece.opcode.control)
    ]
    frames = sum(piece.opcode is not None for piece in data)
    return Count(frames, sum(piece.payload.size for piece in data))


class Interaction(NamedTuple):
    """A transaction that was recorded.

    Attributes:
        transaction: its request, response and tunnel; ``number`` orders them by their beginning,
            and its timing counts from the recording's beginning.
        pieces: what passed after an upgrade, in the order in which it did, both ways.
        operation: the id of the operation that it made, or that its path is about; empty if none.
        stream: the name of the stream it carries, as ``stdin`` or ``control``; empty if none.
    """

    transaction: Transaction
    pieces: tuple[Piece, ...] = ()
    operation: str = ""
    stream: str = ""

    @property
    def replayable(self) -> bool:
        """Whether all of what the daemon said was kept."""
        response = self.transaction.response
        whole = response is None or response.body.whole
        return whole and all(
            piece.payload.whole for piece in self.pieces if piece.direction is Direction.RECEIVED
        )


class Server(NamedTuple):
    """Who was recorded.

    Attributes:
        kind: lxd or incus.
        version: as its ``GET /1.0`` said, such as ``5.0.2``; empty if it was never asked.
        base: its address, such as ``http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket``.
    """

    kind: Kind
    base: str
    version: str = ""


class Cassette(NamedTuple):
    """A recording.

    Attributes:
        server: who was recorded.
        interactions: in the order in which their requests began.
        recorded_with: the program that did, such as ``lxdtap 0.1.0``.
        recorded_at: Unix time of its beginning, in nanoseconds.
        complete: whether nothing that passed is missing.
        version: of the format that it was read from.
    """

    server: Server
    interactions: tuple[Interaction, ...] = ()
    recorded_with: str = ""
    recorded_at: int = 0
    complete: bool = True
    version: int = VERSION


Attachment = Callable[[str], bytes]
"""Gives the bytes that lie beside a cassette, by their SHA-256 in hexadecimal.

Raises a LookupError where there are none.
"""
