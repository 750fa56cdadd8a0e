"""The relay: two connected sockets made one, byte for byte, each way on its own.

Bytes are sent on before anybody looks at them, and all that came together before any of it is
looked at, unless it is large or somebody's end: nobody waits for that, and whoever gets them has
more to do each time it wakes. Eight connections get 10 % more requests through by that.

What one side does to its half of the connection is done to the other's: an end of sending, a full
close, a refusal to read. When one side does not read, the other is not read from: at most one
buffer waits in each direction.

Plain non-blocking sockets and what they are ready for (:mod:`lxdtap.tap.readiness`), not asyncio's
transports: those cannot tell a half-closed peer from one that is gone, and give no word when it
goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Protocol

from lxdtap.clock import moment
from lxdtap.errors import NO_MEMORY
from lxdtap.tap.readiness import Readiness
from lxdtap.transaction import Direction, Moment

BUFFER = 256 << 10
"""Bytes read at once. The kernel's own default for a unix socket is 208 KiB."""
LARGE = 64 << 10
"""Bytes of one read that are looked at before others' are sent on: so 4 MiB wait, at most."""
AT_HAND = 4 << 20
"""Bytes of which malloc keeps twice as many at hand, once it has given out and got back as many in
one piece (mallopt(3), M_MMAP_THRESHOLD). Else it asks the kernel for new pages for each read, and
gives them back: 17 µs a read, and a fifth of what a download takes."""
GRACE = 0.5
"""Seconds for which the daemon is still listened to when the client is gone.

lxc hangs up as soon as the JSON it reads is complete, often before the last chunk.
"""


class Observer(Protocol):
    """Whoever is told what passed, after it has."""

    def passed(self, direction: Direction, data: bytes, at: Moment) -> None:
        """These bytes came, and were sent on at that time, as far as they could be."""

    def ended(self, direction: Direction, at: Moment, *, cut: bool) -> None:
        """No more will come in this direction: its sender said so, or was cut off."""

    def closed(self, why: str) -> None:
        """Both sockets are closed."""


class Relay:
    """Joins pairs of sockets; holds what they share."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.readiness = Readiness(loop)
        bytearray(AT_HAND)  # not to be used: to have been

    def join(self, client: socket.socket, daemon: socket.socket, observer: Observer) -> Link:
        """Relay between two connected sockets from now on; the link closes them."""
        return Link(self, client, daemon, observer)

    def close(self) -> None:
        """Give up what is shared; all links must have been closed."""
        self.readiness.close()


class Link:
    """One client connection and its daemon connection."""

    def __init__(
        self, relay: Relay, client: socket.socket, daemon: socket.socket, observer: Observer
    ) -> None:
        self._relay = relay
        self._client = client
        self._daemon = daemon
        self.observer = observer
        self._why = ""
        self._daemon_cut = False
        self._grace: asyncio.TimerHandle | None = None
        client.setblocking(False)
        daemon.setblocking(False)
        self._sending = _Pipe(relay, client, daemon, Direction.SENT, self)
        self._receiving = _Pipe(relay, daemon, client, Direction.RECEIVED, self)

    @property
    def idle(self) -> bool:
        """Whether all that was read from either side was taken by the other."""
        return self._sending.idle and self._receiving.idle

    def stop(self, why: str) -> None:
        """Close both sockets now."""
        self._why = self._why or why
        self._sending.abort()
        self._receiving.abort()

    def hold(self, held: bool) -> None:
        """Read nothing more from either side for now, or go on."""
        self._sending.hold(held)
        self._receiving.hold(held)

    # -- what the pipes tell

    def source_ended(self, pipe: _Pipe, *, cut: bool) -> None:
        """A side ended its sending: is it gone altogether? ``cut``: it was reset, not ended."""
        if pipe is self._receiving:
            cut = cut or self._daemon_cut
            how = "the daemon's connection was cut" if cut else "the daemon closed the connection"
            self._why = self._why or how
        readiness = self._relay.readiness
        readiness.settle()  # what passed before
        self.observer.ended(pipe.direction, moment(), cut=cut)
        other = self._receiving if pipe is self._sending else self._sending
        if not other.done:
            gone = self._client_gone if pipe is self._sending else self._sending.abort
            readiness.gone(pipe.source, gone)

    def target_gone(self, pipe: _Pipe, *, reset: bool) -> None:
        """A side no longer reads. Of a reset, writing and reading learn once, whoever is first."""
        if pipe is self._receiving:
            self._client_gone()
        else:
            self._daemon_cut = self._daemon_cut or reset
            pipe.abort()

    def pipe_done(self) -> None:
        """One direction is over; with the other, so is the connection."""
        if not (self._sending.done and self._receiving.done):
            return
        if self._grace is not None:
            self._grace.cancel()
        for sock in (self._client, self._daemon):
            self._relay.readiness.forget(sock)
            sock.close()
        self._relay.readiness.settle()
        self.observer.closed(self._why or "the client closed the connection")

    def _client_gone(self) -> None:
        """Nobody reads the answer. Hear its end all the same, then tell the daemon as much."""
        self._why = self._why or "the client closed the connection"
        if self._receiving.done or self._grace is not None:
            return
        self._receiving.discard()
        self._grace = self._relay.loop.call_later(GRACE, self._receiving.abort)


class _Pipe:
    """One direction: reads from the source, writes to the target."""

    def __init__(
        self,
        relay: Relay,
        source: socket.socket,
        target: socket.socket,
        direction: Direction,
        link: Link,
    ) -> None:
        self.source = source
        self.direction = direction
        self.done = False
        self._target = target
        self._link = link
        self._passed = link.observer.passed
        self._readiness = relay.readiness
        self._afterwards = relay.readiness.afterwards
        self._pending: memoryview | None = None  # read, not yet accepted by the target
        self._discarding = False
        self._ended = False  # the source's end was read
        self._held = False
        self._listen()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return self._pending is None

    def hold(self, held: bool) -> None:
        """Do not read for now, or do again."""
        self._held = held
        self._listen()

    def discard(self) -> None:
        """From now on read and tell, but do not write: the target is gone."""
        self._discarding = True
        self._flushed()

    def abort(self) -> None:
        """End this direction; the source's next write fails, as the target's side would have it."""
        if self.done:
            return
        if not self._ended:
            _shutdown(self.source, socket.SHUT_RD)
        self._finish()

    def _listen(self) -> None:
        """Be told when there is something to read, or no longer."""
        wanted = not (self._held or self._ended or self.done or self._pending is not None)
        self._readiness.readable(self.source, self._readable if wanted else None)

    def _readable(self) -> None:
        try:
            data = self.source.recv(BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end(cut=True)
            return
        if not data:
            self._end(cut=False)
            return
        size, sent = len(data), self._send(data)
        # Before it is told that nobody reads it, because that tells of the end at once.
        self._afterwards((self._passed, self.direction, data))
        if sent != size:
            self._not_all_sent(memoryview(data), sent)
        if size >= LARGE:
            self._readiness.settle()

    def _not_all_sent(self, data: memoryview, sent: int | OSError) -> None:
        if isinstance(sent, OSError):
            self._target_gone(sent)
        else:
            self._pending = data[sent:]
            self._listen()
            self._readiness.writable(self._target, self._writable)

    def _end(self, *, cut: bool) -> None:
        self._ended = True
        self._listen()
        self._link.source_ended(self, cut=cut)
        self._finish()

    def _send(self, data: bytes | memoryview) -> int | OSError:
        """How many bytes of it need not be sent any more; or why none ever can be."""
        if self._discarding:
            return len(data)
        try:
            return self._target.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if error.errno in NO_MEMORY:
                return 0
            # Its traceback holds the caller's frame, and so itself: a ring, and these bytes in it.
            return error.with_traceback(None)

    def _target_gone(self, error: OSError) -> None:
        self._link.target_gone(self, reset=error.errno == errno.ECONNRESET)

    def _writable(self) -> None:
        pending = self._pending
        if pending is None:
            return
        sent = self._send(pending)
        if isinstance(sent, OSError):
            self._target_gone(sent)
            return  # which dropped what waited for it
        self._pending = pending[sent:]
        if not self._pending:
            self._flushed()

    def _flushed(self) -> None:
        """Nothing waits to be written any more."""
        if self._pending is None:
            return
        self._pending = None
        self._readiness.writable(self._target, None)
        self._listen()

    def _finish(self) -> None:
        if self._pending is not None:
            self._pending = None
            self._readiness.writable(self._target, None)
        self.done = True
        self._listen()
        _shutdown(self._target, socket.SHUT_WR)
        self._link.pipe_done()


def _shutdown(sock: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):  # the peer was faster
        sock.shutdown(how)
