"""Conversations on one connection: how the tests hold them, and how they retell them.

A conversation is a list of turns: ``">>"`` and ``"<<"`` say who speaks, client or daemon, and the
bytes after it are what they say, one piece each. ``">|"`` and ``"<|"`` end a side's sending, and
``"||"`` the connection. What the tap makes of it is retold in lines of the same kind.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from hypothesis import strategies as st

from lxdtap.events import (
    Closed,
    Cut,
    Data,
    Event,
    FrameData,
    Garbled,
    MessageEnd,
    RequestHead,
    ResponseHead,
    Switched,
)
from lxdtap.fold import Fold
from lxdtap.transaction import (
    Direction,
    Finished,
    FrameSeen,
    Moment,
    Transaction,
    Update,
    Upgraded,
)
from lxdtap.wire import Wire

Turn = str | bytes

LIMIT = 1 << 16
BASE = "http+unix://%2Frun%2Flxd"
WHY = "somebody closed the connection"
AT = Moment(0, 0)

_SPEAKERS = {">>": Direction.SENT, "<<": Direction.RECEIVED}
_ENDS = {">|": Direction.SENT, "<|": Direction.RECEIVED}
_ARROWS = {Direction.SENT: ">>", Direction.RECEIVED: "<<"}


def wire(limit: int = LIMIT) -> Wire:
    """A fresh connection, number 7."""
    return Wire(7, limit)


def each(wire: Wire, turns: Iterable[Turn], at: Moment = AT) -> Iterator[Event]:
    """Hold a conversation; the events as they come."""
    speaker = Direction.SENT
    for turn in turns:
        if isinstance(turn, bytes):
            yield from wire.feed(speaker, turn, at)
        elif turn in _SPEAKERS:
            speaker = _SPEAKERS[turn]
        elif turn in _ENDS:
            yield from wire.end(_ENDS[turn], at)
        else:
            assert turn == "||", f"{turn} is no turn of a conversation"
            yield from wire.close(at, WHY)


def talk(wire: Wire, *turns: Turn) -> list[str]:
    """Hold a conversation, or go on with it; retell it."""
    return retell(each(wire, turns))


def retell(events: Iterable[Event]) -> list[str]:
    """Events as lines: which exchange, who, what. Pieces of data that follow each other are one."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        if isinstance(event, Data) and isinstance(last, Data) and _alike(event, last):
            merged[-1] = last._replace(data=last.data + event.data)
        else:
            merged.append(event)
    return [_line(event) for event in merged]


def _alike(one: Data, other: Data) -> bool:
    return (one.exchange, one.direction) == (other.exchange, other.direction)


def _line(event: Event) -> str:
    match event:
        case RequestHead():
            start = b" ".join((event.method, event.target, event.version)).decode()
            return f"{event.exchange} >> {start.strip()}"
        case ResponseHead():
            return f"{event.exchange} << {event.status} {event.reason.decode()}"
        case Switched():
            because = f": {event.reason}" if event.reason else ""
            return f"{event.exchange} == {event.protocol}{because}"
        case Closed():
            return f"closed: {event.why}"
        case _:
            return f"{event.exchange} {_ARROWS[event.direction]} {_said(event)}"


def _said(event: Data | MessageEnd | Garbled | Cut | FrameData) -> str:
    match event:
        case Data():
            return repr(event.data)
        case MessageEnd():
            return "end" + "".join(f", {n.decode()}: {v.decode()}" for n, v in event.trailers)
        case Garbled():
            return f"garbled: {event.reason}"
        case Cut():
            return f"cut in the {event.doing}"
        case FrameData():
            more = "" if event.frame.final else " …"
            return f"{event.frame.opcode.name} {event.frame.payload.captured!r}{more}"


def updates(*turns: Turn, limit: int = LIMIT) -> list[Update]:
    """Hold a conversation; all that the fold tells of it."""
    fold = Fold(limit)
    fold.open(7, BASE, None)
    return [update for event in each(wire(limit), turns) for update in fold.add(event)]


def transactions(*turns: Turn, limit: int = LIMIT) -> list[Transaction]:
    """Hold a conversation; the transactions that came to their end."""
    told = updates(*turns, limit=limit)
    return [update.transaction for update in told if isinstance(update, Finished)]


def frames(*turns: Turn) -> list[FrameSeen]:
    """Hold a conversation; the frames that were seen."""
    return [update for update in updates(*turns) if isinstance(update, FrameSeen)]


def upgrades(*turns: Turn) -> list[Transaction]:
    """Hold a conversation; the transactions that left HTTP, as they were then."""
    return [update.transaction for update in updates(*turns) if isinstance(update, Upgraded)]


def bytewise(turns: Iterable[Turn]) -> list[Turn]:
    """The same conversation, one byte at a time."""
    result: list[Turn] = []
    for turn in turns:
        result += [bytes([b]) for b in turn] if isinstance(turn, bytes) else [turn]
    return result


@st.composite
def resplit(draw: st.DrawFn, turns: Sequence[Turn]) -> list[Turn]:
    """The same conversation, each piece of it cut in arbitrary places."""
    result: list[Turn] = []
    for turn in turns:
        result += draw(pieces(turn)) if isinstance(turn, bytes) else [turn]
    return result


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Some bytes cut in arbitrary places; none of the pieces is empty."""
    cuts = draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8))
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[i:j] for i, j in itertools.pairwise(places) if i < j]


def cost(action: Callable[[], object]) -> float:
    """What an action costs this thread, in seconds of the processor's time: the best of three.

    Good for ratios only: how much more does eight times as much cost?
    """
    costs = []
    for _ in range(3):
        begun = time.thread_time()
        action()
        costs.append(time.thread_time() - begun)
    return min(costs)
