"""The request core: the one place that connects to the daemon and makes transactions.

A :class:`Core` takes connected client sockets, whoever they are from, connects each to the daemon
on a socket of its own, relays, and tells ``hear`` of what passes, as events.

Bytes are looked at after they were sent on, for so long at a time that nobody else waits: what
is not read by then is read in later turns of the loop. A connection that brings more than can be
read, or much while whoever hears of it is behind, is itself made to wait, as by a slower daemon.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lxdtap.clock import moment
from lxdtap.errors import UpstreamError
from lxdtap.tap.refusal import Refusal
from lxdtap.tap.relay import Link, Relay
from lxdtap.tap.upstream import Upstream
from lxdtap.transaction import CAPTURE, Direction, Moment, Peer
from lxdtap.wire.connection import Wire
from lxdtap.wire.events import Closed, Event, Opened, Refused, Said, Whole, WholeMessage

TURN = 2_000_000
"""Nanoseconds for which one turn of the loop may look at what passed."""
UNREAD = 1 << 20
"""Bytes of one connection that may have passed and not been looked at."""
MUCH = 64 << 10
"""Bytes that a connection may bring while whoever hears of them is behind."""
REST = 0.002
"""Seconds after which a connection that brought more looks whether it may go on."""
_LOOK = 0.02
"""Seconds after which it is looked again, in the end, what is still under way."""

Hear = Callable[[Event], None]
HearWhole = Callable[[Whole], None]
Follow = Callable[[int], Wire]


class Core:
    """Taps connections to one daemon.

    Args:
        upstream: the daemon.
        hear: is told every event, in order, on the loop's thread.
        loop: runs it all.
        hear_whole: is told of messages that came whole in place of ``hear``, by what their events
            have, which costs less; None: ``hear`` is told of them too.
        follow: makes what reads a connection, from the connection's number.
        numbers: of the connections; None: from 1 on.
        behind: whether whoever hears has more to do than should wait for it.
        say: is told what a person should know of the tap itself, besides as an event.
    """

    def __init__(
        self,
        upstream: Upstream,
        hear: Hear,
        loop: asyncio.AbstractEventLoop,
        *,
        hear_whole: HearWhole | None = None,
        follow: Follow | None = None,
        numbers: Iterator[int] | None = None,
        behind: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.loop = loop
        self.hear = hear
        self.hear_whole = hear_whole or (lambda message: hear(WholeMessage(*message)))
        self.behind = behind
        self.say = say
        self.relay = Relay(loop)
        self._upstream = upstream
        self._follow = follow or (lambda number: Wire(number, CAPTURE))
        self._tapped: dict[int, _Tapped] = {}
        self._late: deque[_Tapped] = deque()
        self._numbers = numbers or itertools.count(1)
        self._served = 0

    @property
    def served(self) -> int:
        """How many clients came."""
        return self._served

    @property
    def busy(self) -> int:
        """Connections with something under way."""
        return sum(not tapped.idle for tapped in self._tapped.values())

    def serve(
        self, client: socket.socket, peer: Peer | None, gone: Callable[[], None] | None = None
    ) -> int:
        """Connect a client to the daemon, and relay until one of them leaves.

        Args:
            client: a connected stream socket, which is closed in the end.
            peer: who is at its other end.
            gone: called when the connection is closed and all of it was told of.

        Returns:
            The connection's number, as its transactions will have it.
        """
        self._served += 1
        number = next(self._numbers)
        self.hear(Opened(number, moment(), self._upstream.base, peer))
        tapped = _Tapped(self, number, self._follow(number))
        tapped.gone, tapped.client = gone, client
        self._tapped[number] = tapped
        tapped.joining = self.loop.create_task(self._join(client, peer, tapped))
        return number

    def stop(self, number: int, why: str) -> None:
        """Close a connection now, if it is still there."""
        tapped = self._tapped.get(number)
        if tapped is not None:
            tapped.stop(why)

    async def drain(self, seconds: float) -> bool:
        """Close each connection once nothing is under way on it; whether all are within so long."""
        end = time.monotonic() + seconds
        while True:
            for tapped in list(self._tapped.values()):
                if tapped.idle:
                    tapped.stop("lxdtap ended an idle connection")
            if not self._tapped or time.monotonic() >= end:
                return not self._tapped
            await asyncio.sleep(_LOOK)

    def close(self) -> None:
        """Close everything now; what is under way is told of as broken off."""
        for tapped in list(self._tapped.values()):
            tapped.stop("lxdtap was stopped")
        self._late.clear()
        for tapped in list(self._tapped.values()):
            tapped.catch_up(None)
        self.relay.close()
        self._upstream.close()

    # -- what connections tell

    def late(self, tapped: _Tapped) -> None:
        """A connection has passed more than could be looked at: go on in the next turn."""
        if not self._late:
            self.loop.call_soon(self._catch_up)
        self._late.append(tapped)

    def gone(self, number: int) -> None:
        """A connection is closed."""
        del self._tapped[number]

    # -- inside

    def _catch_up(self) -> None:
        """A turn's worth of looking, shared by all that are late."""
        end = time.monotonic_ns() + TURN
        while self._late and time.monotonic_ns() < end:
            share = TURN // len(self._late)
            tapped = self._late.popleft()
            if not tapped.catch_up(time.monotonic_ns() + share):
                self._late.append(tapped)
        if self._late:
            self.loop.call_soon(self._catch_up)

    async def _join(self, client: socket.socket, peer: Peer | None, tapped: _Tapped) -> None:
        try:
            daemon = await self._upstream.connect(peer)
        except UpstreamError as error:
            self.hear(Refused(tapped.number, moment(), str(error)))
            self.say(str(error))
            try:
                ours, daemon = socket.socketpair()
            except OSError:  # no file descriptors are left: there is no way to answer
                client.close()
                tapped.stop("lxdtap ran out of file descriptors")
                return
            # Its traceback holds this frame, and so the refusal itself: a ring that only the
            # garbage collector would undo, which stops all traffic for 0.1 s after thousands.
            tapped.refusal = Refusal(self.loop, ours, error.with_traceback(None))
        tapped.joining = None
        tapped.link = self.relay.join(client, daemon, tapped)


class _Look(NamedTuple):
    """Something passed and is to be looked at; ``size`` is its bytes."""

    events: Iterator[Event]
    size: int
    at: Moment


class _Tapped:
    """One connection being watched. Nothing in here can disturb its relay."""

    def __init__(self, core: Core, number: int, wire: Wire) -> None:
        self.number = number
        self.joining: asyncio.Task[None] | None = None
        self.link: Link | None = None
        self.refusal: Refusal | None = None
        self.client: socket.socket | None = None
        self.gone: Callable[[], None] | None = None
        self._core = core
        self._hear, self._hear_whole = core.hear, core.hear_whole
        self._wire: Wire | None = wire
        self._looks: deque[_Look] = deque()
        self._unread = 0
        self._brought = 0  # since nobody was behind
        self._resting = False
        self._held = False
        self._over = False

    @property
    def idle(self) -> bool:
        """Whether no transaction is under way, and nobody has yet to take the end of one."""
        passed = self.link is None or self.link.idle
        return passed and not self._looks and self._wire is not None and self._wire.idle

    def stop(self, why: str) -> None:
        """Close the connection."""
        if self.joining is not None:
            self.joining.cancel()
            self.joining = None
            if self.client is not None:
                self.client.close()
            self.closed(why)
        elif self.link is not None:
            self.link.stop(why)

    # -- what the link tells

    def passed(self, direction: Direction, data: bytes, at: Moment) -> None:
        """Bytes passed."""
        wire = self._wire
        if wire is None:
            return
        message = None
        if not self._looks:
            try:
                message = wire.whole(direction, data, at)
            except Exception as error:  # noqa: BLE001 - whatever it is, the bytes must go on
                self._fault(error, at)
        if message is None:
            self._look(_Look(wire.feed(direction, data, at), len(data), at))
        else:  # it is told of without any of the below
            self._hear_whole(message)
            if self.refusal is not None:
                self.refusal.asked(wire)
        self._brought += len(data)
        if self._brought > MUCH and not self._resting:
            self._rest()

    def ended(self, direction: Direction, at: Moment, *, cut: bool) -> None:
        """A side will send no more."""
        if self._wire is not None:
            self._look(_Look(self._wire.end(direction, at, cut=cut), 0, at))

    def closed(self, why: str) -> None:
        """The connection is over."""
        self._over, self.link = True, None
        at = moment()
        unseen: list[Event] = [Closed(self.number, at, why)]
        events = iter(unseen) if self._wire is None else self._wire.close(at, why)
        self._look(_Look(events, 0, at))

    # -- looking

    def catch_up(self, until: int | None) -> bool:
        """Look at what waits until that time, monotonic nanoseconds; whether that was all."""
        while self._looks:
            look = self._looks[0]
            if not self._take(look, until):
                return False
            self._looks.popleft()
            self._unread -= look.size
        self._hold()
        if self._over:
            self._core.gone(self.number)
            if self.gone is not None:
                self.gone()
        return True

    def _look(self, look: _Look) -> None:
        late = bool(self._looks)
        self._looks.append(look)
        self._unread += look.size
        if not late and not self.catch_up(look.at.monotonic + TURN):
            self._core.late(self)
        self._hold()

    def _rest(self) -> None:
        """Wait for whoever hears, if that one is behind; go on if not."""
        self._resting = not self._over and self._core.behind()
        if self._resting:
            self._core.loop.call_later(REST, self._rest)
        else:
            self._brought = 0
        self._hold()

    def _hold(self) -> None:
        """Have nothing more read from either side for now, or have it again."""
        held = self._resting or self._unread > (0 if self._held else UNREAD)
        if held != self._held and self.link is not None:
            self._held = held
            self.link.hold(held)

    def _take(self, look: _Look, until: int | None) -> bool:
        """A fault of ours while looking ends the looking, nothing else."""
        try:
            for event in look.events:
                self._hear(event)
                if until is not None and time.monotonic_ns() >= until:
                    return False
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes must go on
            self._fault(error, look.at)
        if self.refusal is not None and self._wire is not None:
            self.refusal.asked(self._wire)
        return True

    def _fault(self, error: Exception, at: Moment) -> None:
        fault = f"a fault of lxdtap's, please report it: {error!r}"
        said = f"connection {self.number} is only counted from here on; {fault}"
        self._hear(Said(at, said))
        self._core.say(said)
        try:
            if self._wire is not None:
                for event in self._wire.give_up(fault, at):
                    self._hear(event)
        except Exception:  # noqa: BLE001 - not even that: then it is relayed unseen
            self._wire = None
            while len(self._looks) > 1:
                self._unread -= self._looks.pop().size
