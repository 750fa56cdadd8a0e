"""Conversations between a client and a daemon, as the tests write them down.

``talk(">>", GET, "<<", OK, "||")`` is one: ``>>`` lets the client speak, ``<<`` the daemon; each
piece of bytes is one read. ``>|`` and ``<|`` say that one of them has no more to say, ``<x`` that
it was cut off, ``||`` that the connection is closed. A second passes with each word.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from lxdtap.transaction import (
    Direction,
    Finished,
    Frame,
    FrameSeen,
    Moment,
    Peer,
    Timing,
    Transaction,
    Update,
    Upgraded,
)
from lxdtap.wire.connection import Wire
from lxdtap.wire.events import Event, Opened
from lxdtap.wire.fold import Fold

SECOND = 1_000_000_000
BASE = "http+unix://lxd"
PEER = Peer(1, 2, 3)
WHY = "hung up"

GET = b"GET /1.0 HTTP/1.1\r\nHost: lxd\r\n\r\n"
POST = b"POST /1.0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nping"
UPGRADE = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

_SIDES = {">": Direction.SENT, "<": Direction.RECEIVED}


class Talk:
    """One connection's conversation and what was made of it."""

    def __init__(self, limit: int) -> None:
        self.wire = Wire(1, limit)
        self.fold = Fold(limit)
        self.fold.add(Opened(1, Moment(0, 0), BASE, PEER))
        self.events: list[Event] = []
        self.updates: list[Update] = []
        self.now = 0
        self._speaker = Direction.SENT

    @property
    def at(self) -> Moment:
        """The present, on both clocks; the wall's began a thousand seconds earlier."""
        return Moment(self.now, self.now + 1000 * SECOND)

    def say(self, *words: str | bytes) -> Talk:
        """Go on talking."""
        for word in words:
            self._fold(self._hear(word))
            self.now += SECOND
        return self

    def give_up(self, reason: str) -> Talk:
        """Have the wire stop reading."""
        self._fold(list(self.wire.give_up(reason, self.at)))
        return self

    def _hear(self, word: str | bytes) -> list[Event]:
        if isinstance(word, bytes):
            return list(self.wire.feed(self._speaker, word, self.at))
        if word == "||":
            return list(self.wire.close(self.at, WHY))
        side = _SIDES[word[0]]
        if word[1] in "|x":
            return list(self.wire.end(side, self.at, cut=word[1] == "x"))
        self._speaker = side
        return []

    def _fold(self, events: list[Event]) -> None:
        self.events += events
        for event in events:
            self.updates += self.fold.add(event)

    @property
    def finished(self) -> list[Transaction]:
        """The transactions that ended, as they did."""
        return [update.transaction for update in self.updates if isinstance(update, Finished)]

    @property
    def only(self) -> Transaction:
        """The one transaction that ended."""
        (transaction,) = self.finished
        return transaction

    @property
    def upgraded(self) -> Transaction:
        """The one transaction that left HTTP."""
        (update,) = (update for update in self.updates if isinstance(update, Upgraded))
        return update.transaction

    @property
    def frames(self) -> list[tuple[Direction, Frame]]:
        """The frames that passed."""
        return [
            (update.direction, update.frame)
            for update in self.updates
            if isinstance(update, FrameSeen)
        ]

    @property
    def timeless(self) -> list[Transaction | tuple[Direction, Frame]]:
        """All frames, and all transactions but for their times."""
        never = Timing(0, 0)
        return [*self.frames, *(told._replace(timing=never) for told in self.finished)]


def talk(*words: str | bytes, limit: int = 1 << 16) -> Talk:
    """Hold a conversation."""
    return Talk(limit).say(*words)


def request(head: bytes, body: bytes = b"") -> Transaction:
    """What is made of a request that is answered, by its head's lines but for the last, empty."""
    return talk(">>", head + b"\r\n" + body, "<<", OK, "||").finished[0]


def reply(head: bytes, body: bytes = b"", *, asked: bytes = GET) -> Transaction:
    """What is made of an answer after which the daemon hangs up."""
    return talk(">>", asked, "<<", head + b"\r\n" + body, "<|", "||").finished[0]


def captured(transaction: Transaction) -> bytes:
    """The answer's body."""
    assert transaction.response is not None
    return transaction.response.body.captured


def statuses(transactions: list[Transaction]) -> list[int | None]:
    """What each was answered; None where it was not."""
    return [told.response.status if told.response else None for told in transactions]


# -- the same in other pieces, and what it costs


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Some bytes cut in arbitrary places; none of the pieces is empty."""
    cuts = draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=8))
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[i:j] for i, j in itertools.pairwise(places) if i < j]


@st.composite
def resplit(draw: st.DrawFn, words: Sequence[str | bytes]) -> list[str | bytes]:
    """The same conversation, each piece of it cut in arbitrary places."""
    result: list[str | bytes] = []
    for word in words:
        result += draw(pieces(word)) if isinstance(word, bytes) else [word]
    return result


def bytewise(*words: str | bytes) -> list[str | bytes]:
    """The same conversation, one byte at a time."""
    result: list[str | bytes] = []
    for word in words:
        result += [bytes([byte]) for byte in word] if isinstance(word, bytes) else [word]
    return result


def cost(action: Callable[[], object]) -> float:
    """What an action costs this thread, in seconds of the processor's time: the best of three.

    Good for ratios only: how much more does eight times as much cost? Nothing is collected
    meanwhile, since that goes through all that the tests before have left.
    """
    costs = []
    gc.disable()
    try:
        for _ in range(3):
            begun = time.thread_time()
            action()
            costs.append(time.thread_time() - begun)
    finally:
        gc.enable()
    return min(costs)
