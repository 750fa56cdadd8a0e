"""From a recording's interactions to the updates that its log was made of. Pure.

The same journal and formats then show it. What several of them did at the same time is told in
the order in which it passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from lxdtap.cassette.model import Interaction, Piece
from lxdtap.transaction import (
    Body,
    BytesSeen,
    Finished,
    Frame,
    FrameSeen,
    Moment,
    Timing,
    Transaction,
    Tunnel,
    Update,
    Upgraded,
)

_Step = tuple[int, Update]
"""An update, and when it came: nanoseconds since the recording began."""


def updates(interactions: Iterable[Interaction], limit: int) -> Iterator[Update]:
    """What happened, in the order in which it did.

    Args:
        interactions: in the order in which they began; each is taken when it is needed.
        limit: bytes of a body that the log looked at.
    """
    under_way = _UnderWay()
    for interaction in interactions:
        yield from under_way.until(interaction.transaction.timing.begun)
        under_way.add(_steps(interaction, limit))
    yield from under_way.until(None)


class _UnderWay:
    """The interactions that have begun and not ended; each has one step in the heap, its next."""

    def __init__(self) -> None:
        self._count = 0  # those of one time come in the order of their requests
        self._heap: list[tuple[int, int, Update, Iterator[_Step]]] = []

    def add(self, steps: Iterator[_Step]) -> None:
        self._count += 1
        self._put(self._count, steps)

    def until(self, time: int | None) -> Iterator[Update]:
        """What comes before this time; None: all."""
        while self._heap and (time is None or self._heap[0][0] < time):
            _, place, update, steps = heapq.heappop(self._heap)
            self._put(place, steps)
            yield update

    def _put(self, place: int, steps: Iterator[_Step]) -> None:
        for at, update in steps:
            heapq.heappush(self._heap, (at, place, update, steps))
            return


def _steps(interaction: Interaction, limit: int) -> Iterator[_Step]:
    """What one interaction was; times that somebody edited never run backwards."""
    transaction = _looked_at(interaction.transaction, limit)
    timing = transaction.timing
    at = next(t for t in (timing.answered, timing.sent, timing.begun) if t is not None)
    if transaction.tunnel is not None:
        yield at, Upgraded(_at_upgrade(transaction, transaction.tunnel))
        for piece in interaction.pieces:
            at = max(at, piece.offset)
            yield at, _seen(transaction.number, piece, _moment(timing, piece.offset))
    yield max(at, timing.ended or 0), Finished(transaction)


def _at_upgrade(transaction: Transaction, tunnel: Tunnel) -> Transaction:
    """The transaction as it was when it left HTTP."""
    fresh = Tunnel(tunnel.protocol, reason=tunnel.reason)
    timing = transaction.timing._replace(ended=None)
    return transaction._replace(tunnel=fresh, timing=timing, broken="")


def _seen(number: int, piece: Piece, at: Moment) -> FrameSeen | BytesSeen:
    if piece.opcode is None:
        return BytesSeen(number, piece.direction, piece.payload.captured, at)
    frame = Frame(piece.opcode, piece.payload, piece.final)
    return FrameSeen(number, piece.direction, frame, at)


def _moment(timing: Timing, offset: int) -> Moment:
    return Moment(offset, timing.wall - timing.begun + offset)


def _looked_at(transaction: Transaction, limit: int) -> Transaction:
    """The transaction with as much of its bodies as the log saw; a cassette has more."""
    asked, answer = transaction.request, transaction.response
    return transaction._replace(
        request=asked._replace(body=_beginning(asked.body, limit)),
        response=answer and answer._replace(body=_beginning(answer.body, limit)),
    )


def _beginning(body: Body, limit: int) -> Body:
    if len(body.captured) <= limit:
        return body
    return Body(body.size, body.captured[:limit], body.sha256)
