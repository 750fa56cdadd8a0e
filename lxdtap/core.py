"""The request core: the one place that connects to the daemon and makes transactions.

A :class:`Core` takes connected client sockets, whoever they are from, connects each to the daemon
on a socket of its own, relays, and tells ``hear`` what became of the transactions on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable

from lxdtap.endpoint import Endpoint
from lxdtap.errors import UpstreamError
from lxdtap.events import Event
from lxdtap.fold import Fold
from lxdtap.relay import GRACE, Link, Relay
from lxdtap.transaction import Direction, Moment, Note, Peer, Update
from lxdtap.wire import Wire

CAPTURE = 4 << 20
"""Bytes of a body that are kept; larger ones are counted and hashed."""
_TICK = 0.2
_RETRY = 0.005

Hear = Callable[[Update], None]
Follow = Callable[[int], Wire]


def moment() -> Moment:
    """Both clocks, now."""
    return Moment(time.monotonic_ns(), time.time_ns())


def connect(endpoint: Endpoint) -> socket.socket | None:
    """Connect to the daemon, without waiting; None where it has no room for now.

    The socket has no name: a client with one is not trusted by LXD (lxd/daemon.go, Authenticate).

    Raises:
        UpstreamError: nothing answers there, or we may not connect.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(endpoint.path)
    except BlockingIOError:  # unix(7), EAGAIN: its backlog is full
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise unreachable(endpoint, error) from error
    return sock


def unreachable(endpoint: Endpoint, error: OSError) -> UpstreamError:
    """What it means that a connection failed so, and what to do."""
    where = f"{endpoint.path} (from {endpoint.found_by})"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            text = (
                f"no daemon at {where}: there is no such socket; start the daemon or see --upstream"
            )
        case errno.ECONNREFUSED:
            text = f"no daemon listens at {where}: start it, or name another with --upstream"
        case errno.EACCES | errno.EPERM:
            text = f"not permitted to connect to {where}: join the socket's group, or use sudo"
            return UpstreamError(text, 403)
        case _:
            text = f"cannot connect to {where}: {error.strerror or error}; see --upstream"
    return UpstreamError(text)


class Core:
    """Taps connections to one daemon.

    Args:
        endpoint: the daemon.
        hear: is told every update, in order, on the loop's thread.
        loop: runs it all.
        follow: makes what reads a connection, from the connection's number.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hear: Hear,
        loop: asyncio.AbstractEventLoop,
        follow: Follow | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.fold = Fold(CAPTURE)
        self.loop = loop
        self._hear = hear
        self._follow = follow or (lambda number: Wire(number, CAPTURE))
        self._relay = Relay(loop)
        self._tapped: dict[int, _Tapped] = {}
        self._connections = 0
        self._ticking = False
        self._empty: asyncio.Event = asyncio.Event()
        self._empty.set()

    @property
    def busy(self) -> int:
        """Connections with something under way."""
        return sum(not tapped.idle for tapped in self._tapped.values())

    def serve(self, client: socket.socket, peer: Peer | None) -> None:
        """Connect a client to the daemon, and relay until one of them leaves."""
        self._connections += 1
        self.fold.open(self._connections, self.endpoint.base, peer)
        tapped = _Tapped(self, self._connections, self._follow(self._connections))
        self._tapped[self._connections] = tapped
        self._empty.clear()
        self._start_ticking()
        self._connect(client, tapped)

    def close_idle(self) -> None:
        """Close the connections on which nothing is under way."""
        for tapped in list(self._tapped.values()):
            if tapped.idle:
                tapped.stop("lxdtap ended an idle connection")

    async def drained(self, seconds: float) -> bool:
        """Wait until all connections are closed, for so long at most; whether they are."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Close everything now; what is under way is told of as broken off."""
        for tapped in list(self._tapped.values()):
            tapped.stop("lxdtap was stopped")
        self._relay.close()

    # -- what connections tell

    def tell(self, update: Update) -> None:
        """Pass an update on."""
        self._hear(update)

    def gone(self, number: int) -> None:
        """A connection is closed."""
        del self._tapped[number]
        if not self._tapped:
            self._empty.set()

    # -- inside

    def _connect(self, client: socket.socket, tapped: _Tapped) -> None:
        if tapped.stopped:
            client.close()
            return
        try:
            daemon = connect(self.endpoint)
        except UpstreamError as error:
            self._answer_ourselves(client, tapped, error)
            return
        if daemon is None:
            # As a blocking connect() would, wait for room in the backlog, for as long as it takes.
            self.loop.call_later(_RETRY, self._connect, client, tapped)
            return
        tapped.link = self._relay.join(client, daemon, tapped)

    def _answer_ourselves(
        self, client: socket.socket, tapped: _Tapped, error: UpstreamError
    ) -> None:
        self.fold.own(tapped.number)
        self.tell(Note(str(error), moment()))
        ours, theirs = socket.socketpair()
        tapped.answer = _OwnAnswer(self.loop, ours, error)
        tapped.link = self._relay.join(client, theirs, tapped)

    def _start_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for update in self.fold.tick(time.monotonic_ns()):
            self.tell(update)
        if self._tapped:
            self._start_ticking()


class _Tapped:
    """One connection being watched. Nothing in here can disturb its relay."""

    def __init__(self, core: Core, number: int, wire: Wire) -> None:
        self.number = number
        self.link: Link | None = None
        self.answer: _OwnAnswer | None = None
        self.stopped = False
        self._core = core
        self._wire: Wire | None = wire

    @property
    def idle(self) -> bool:
        """Whether no transaction is under way."""
        return self._wire is not None and self._wire.idle

    def stop(self, why: str) -> None:
        """Close the connection."""
        if self.link is not None:
            self.link.stop(why)
        elif not self.stopped:
            self.closed(why)

    def passed(self, direction: Direction, data: bytes) -> None:
        """Bytes passed."""
        at = moment()
        self._look(lambda wire: wire.feed(direction, data, at), at)
        if self.answer is not None and self._wire is not None:
            self.answer.asked(self._wire)

    def ended(self, direction: Direction) -> None:
        """A side will send no more."""
        at = moment()
        self._look(lambda wire: wire.end(direction, at), at)

    def closed(self, why: str) -> None:
        """The connection is over."""
        self.stopped = True
        at = moment()
        self._look(lambda wire: wire.close(at, why), at)
        self._core.gone(self.number)

    def _look(self, look: Callable[[Wire], list[Event]], at: Moment) -> None:
        """Look at what passed. A fault of ours while looking ends the looking, nothing else."""
        if self._wire is None:
            return
        try:
            self._tell(look(self._wire))
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes must go on
            self._fault(error, self._wire, at)

    def _fault(self, error: Exception, wire: Wire, at: Moment) -> None:
        fault = f"a fault of lxdtap's, please report it: {error!r}"
        self._core.tell(Note(f"connection {self.number} is only counted from here on; {fault}", at))
        try:
            self._tell(wire.give_up(fault, at))
        except Exception:  # noqa: BLE001 - not even that: then it is relayed unseen
            self._wire = None

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            for update in self._core.fold.add(event):
                self._core.tell(update)


class _OwnAnswer:
    """Answers one request in the daemon's stead, with LXD's error envelope.

    It sits at the far end of a pair of sockets, in the daemon's place, so that what the client
    is told takes the same way as everything else.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, error: UpstreamError
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._error = error
        self._answered = False
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def asked(self, wire: Wire) -> None:
        """More was sent: answer once there is a question."""
        method = wire.asked
        if self._answered or (method is None and not wire.tunnelled):
            return
        self._answered = True
        if method is not None:
            self._sock.send(envelope(self._error, body=method != b"HEAD"))
            self._sock.shutdown(socket.SHUT_WR)
        # As Go's server does, leave the client time to read it before the connection goes.
        self._loop.call_later(GRACE if method is not None else 0, self._close)

    def _readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not self._sock.recv(1 << 16):
                self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


def envelope(error: UpstreamError, *, body: bool = True) -> bytes:
    """A response that says what went wrong as LXD would (LXD's lxd/response/response.go)."""
    content = {
        "type": "error",
        "status": "",
        "status_code": 0,
        "operation": "",
        "error_code": error.status,
        "error": f"lxdtap: {error}",
        "metadata": None,
    }
    payload = json.dumps(content).encode() + b"\n"
    reason = {403: "Forbidden", 503: "Service Unavailable"}[error.status]
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (payload if body else b"")
