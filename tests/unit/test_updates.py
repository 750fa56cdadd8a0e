"""From a recording to the updates that its log was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given

from lxdtap.cassette.model import Cassette, Interaction, Piece
from lxdtap.cassette.updates import updates
from lxdtap.record.collect import Collector
from lxdtap.transaction import (
    Body,
    BytesSeen,
    Count,
    Direction,
    Finished,
    Frame,
    FrameSeen,
    Moment,
    Opcode,
    Timing,
    Tunnel,
    Update,
    Upgraded,
)
from lxdtap.wire.events import Opened
from lxdtap.wire.fold import Fold

from .builders import body, request, response, transaction
from .cassettes import cassettes
from .conversation import BASE, GET, OK, SWITCHING, UPGRADE, talk

WALL = 1_700_000_000_000_000_000
LIMIT = 1 << 20


def interaction(number: int, *times: int | None, tunnel: Tunnel | None = None) -> Interaction:
    """One that began, was sent, answered and ended at these times."""
    begun, *later = times
    assert begun is not None
    timing = Timing(WALL + begun, begun, *later)
    done = transaction(request(), response(), number, tunnel)
    return Interaction(done._replace(timing=timing))


def told(*interactions: Interaction) -> list[Update]:
    return list(updates(interactions, LIMIT))


def numbers(found: list[Update]) -> list[int]:
    return [each.transaction.number for each in found if isinstance(each, Finished)]


def piece(offset: int, opcode: Opcode | None = Opcode.TEXT, data: bytes = b"x") -> Piece:
    return Piece(Direction.SENT, offset, body(data), opcode)


def test_in_the_order_in_which_they_ended() -> None:
    """Whatever began first; what ended at once, in the order of its beginning."""
    first, second, third = (
        interaction(1, 0, 0, 1, 9),
        interaction(2, 2, 2, 3, 4),
        interaction(3, 5, 5, 8, 9),
    )
    assert numbers(told(first, second, third)) == [2, 1, 3]
    assert told(second) == [Finished(second.transaction)]


def test_none_is_taken_before_it_is_needed() -> None:
    """What has ended is told before the one after next is looked at."""

    def recorded() -> Iterator[Interaction]:
        yield interaction(1, 0, 0, 1, 2)
        yield interaction(2, 5, 5, 6, 7)
        raise AssertionError

    first = next(updates(recorded(), LIMIT))
    assert isinstance(first, Finished)
    assert first.transaction.number == 1


def test_an_upgrade() -> None:
    """First as it was when it left HTTP, then frames and bytes as they passed, then its end."""
    done = interaction(1, 0, 1, 2, 9, tunnel=Tunnel("websocket", Count(1, 1), ended="closed"))
    done = done._replace(pieces=(piece(3), piece(4, None, b"raw")))
    other = interaction(2, 3, 3, 3, 4)
    upgraded, frame, *between, end = told(done, other)
    assert upgraded == Upgraded(
        done.transaction._replace(
            tunnel=Tunnel("websocket"),
            timing=done.transaction.timing._replace(ended=None),
        )
    )
    assert frame == FrameSeen(
        1, Direction.SENT, Frame(Opcode.TEXT, body(b"x")), Moment(3, WALL + 3)
    )
    raw = BytesSeen(1, Direction.SENT, b"raw", Moment(4, WALL + 4))
    assert between == [raw, Finished(other.transaction)]
    assert end == Finished(done.transaction)


def test_times_that_are_not_there() -> None:
    """What has no end ended with the last that is known; order within one is always kept."""
    bare = interaction(1, 5, None, None, None, tunnel=Tunnel("opaque"))
    edited = bare._replace(pieces=(piece(9), piece(3), piece(6)))
    found = told(edited, interaction(2, 7, 8, None, None))
    kinds = [type(each) for each in found]
    assert kinds == [Upgraded, Finished, FrameSeen, FrameSeen, FrameSeen, Finished]
    assert numbers(found) == [2, 1]


def test_as_much_of_bodies_as_the_log_saw() -> None:
    """The rest is known by size and hash."""
    long = body(b"0123456789")
    whole = interaction(1, 0, 1, 2, 3).transaction
    whole = whole._replace(request=whole.request._replace(body=long))
    assert whole.response is not None
    whole = whole._replace(response=whole.response._replace(body=long))
    (end,) = updates([Interaction(whole)], 4)
    assert isinstance(end, Finished)
    expected = Body(10, b"0123", long.sha256)
    assert end.transaction.response is not None
    assert (end.transaction.request.body, end.transaction.response.body) == (expected, expected)
    (short,) = updates([Interaction(whole._replace(response=None))], 10)
    assert short == Finished(whole._replace(response=None))


def test_the_same_as_the_fold_says() -> None:
    """But for times, which count from the beginning, and who asked."""
    text = b"\x81\x02hi"
    words = talk(">>", GET, "<<", OK, ">>", UPGRADE, "<<", SWITCHING, "<<", text, "<<", text, "||")
    events = [Opened(1, words.events[0].at, BASE, None), *words.events]
    fold, collector = Fold(LIMIT), Collector()
    live = [update for event in events for update in fold.add(event)]
    kept = [found for event in events for found in collector.add(event)]
    assert [_timeless(each) for each in told(*kept)] == [_timeless(each) for each in live]
    assert [type(each) for each in live] == [Finished, Upgraded, FrameSeen, FrameSeen, Finished]


def _timeless(update: Update) -> object:
    match update:
        case Finished() | Upgraded():
            still = update.transaction._replace(timing=Timing(0, 0), peer=None)
            return type(update), still
        case FrameSeen():
            return replace(update, at=Moment(0, 0))
    return update


@given(cassettes())
def test_nothing_is_lost(cassette: Cassette) -> None:
    """Whatever a cassette says, each has one end, and its pieces where it was upgraded."""
    found = list(updates(cassette.interactions, LIMIT))
    assert sorted(numbers(found)) == [each.transaction.number for each in cassette.interactions]
    tunnels = [each for each in cassette.interactions if each.transaction.tunnel is not None]
    assert sum(isinstance(each, Upgraded) for each in found) == len(tunnels)
    pieces = sum(isinstance(each, FrameSeen | BytesSeen) for each in found)
    assert pieces == sum(len(each.pieces) for each in tunnels)
