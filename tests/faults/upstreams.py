"""Fake daemons that keep account: what each connection brought, how it ended, what was asked.

They play coroutines on one thread, so that thousands of connections at once are no matter; the
accounts are read from the test's own thread, while they go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

KEPT = 4 << 20
"""Bytes of what a connection brought that are kept; all of it is counted and hashed."""
_READ = 256 << 10


@dataclass(frozen=True)
class Request:
    """What was asked, and that it came whole."""

    line: bytes
    size: int
    sha256: str


@dataclass
class Account:
    """What one connection came to, as the daemon had it."""

    received: bytearray = field(default_factory=bytearray)
    """What was read, up to :data:`KEPT`."""
    size: int = 0
    """How many bytes were read."""
    sent: int = 0
    """How many bytes were written."""
    ended: float | None = None
    """When the end of what the client sends was read; monotonic seconds."""
    gone: float | None = None
    """When the client had closed altogether (POLLHUP), which a half-close is not."""
    over: bool = False
    """Whether the daemon is through with it."""
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Of all that was read."""
        return self._hash.hexdigest()

    def add(self, data: bytes) -> None:
        """Take what was read."""
        self.size += len(data)
        self._hash.update(data)
        self.received += data[: KEPT - len(self.received)]


class GoneError(Exception):
    """The client ended, or no longer reads."""


class Connection:
    """One connection, for a script to play on."""

    def __init__(self, upstream: Upstream, sock: socket.socket, account: Account) -> None:
        self.account = account
        self.upstream = upstream
        self.sock = sock
        self._unread = bytearray()

    async def read(self) -> bytes:
        """What is there next; nothing at the end."""
        if self._unread:
            data = bytes(self._unread)
            self._unread.clear()
            return data
        return await self._receive()

    async def exactly(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            GoneError: the client ended before.
        """
        while len(self._unread) < size:
            await self._more()
        data = bytes(self._unread[:size])
        del self._unread[:size]
        return data

    async def until(self, end: bytes) -> bytes:
        """All up to these bytes, with them.

        Raises:
            GoneError: the client ended before.
        """
        start = 0
        while (at := self._unread.find(end, start)) < 0:
            start = max(0, len(self._unread) - len(end))
            await self._more()
        return await self.exactly(at + len(end))

    async def head(self) -> bytes:
        """A request's head."""
        return await self.until(b"\r\n\r\n")

    async def skip(self, size: int) -> str:
        """Read a body of so many bytes without keeping it; its SHA-256.

        Raises:
            GoneError: the client ended before.
        """
        hashed = hashlib.sha256()
        while size:
            data = await self.read()
            if not data:
                raise GoneError
            self._unread += data[size:]
            hashed.update(data[:size])
            size -= len(data[:size])
        return hashed.hexdigest()

    async def send(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            GoneError: the client no longer reads.
        """
        try:
            await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except OSError as error:
            raise GoneError from error
        self.account.sent += len(data)

    async def to_end(self) -> None:
        """Read until the client sends no more; more than is kept is counted all the same."""
        while await self.read():
            pass

    async def hangup(self) -> None:
        """Wait until the client has closed altogether; what it still sends is read."""
        await self.to_end()
        await self.upstream.hangup(self.sock)
        self.account.gone = time.monotonic()

    async def readable(self) -> None:
        """Wait until there is something to read, and leave it."""
        loop = asyncio.get_running_loop()
        something = loop.create_future()
        loop.add_reader(self.sock.fileno(), something.set_result, None)
        await something
        loop.remove_reader(self.sock.fileno())

    async def _more(self) -> None:
        data = await self._receive()
        if not data:
            raise GoneError
        self._unread += data

    async def _receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            data = await loop.sock_recv(self.sock, _READ)
        except OSError:
            data = b""
        if data:
            self.account.add(data)
        elif self.account.ended is None:
            self.account.ended = time.monotonic()
        return data


Script = Callable[[Connection], Awaitable[None]]


class Upstream:
    """Listens on a unix socket in a directory, and plays a script on every connection."""

    def __init__(self, directory: Path, script: Script) -> None:
        self.path = str(directory / "unix.socket")
        self.connections: list[Account] = []
        """One for each connection, in their order. The tap's own knock is the first."""
        self.requests: list[Request] = []
        """What :func:`serving` has answered, whole."""
        self.go = asyncio.Event()
        """For scripts to wait for; ``call(daemon.go.set)`` sets it."""
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()
        self._hangups: dict[int, asyncio.Future[None]] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(self.path)
        self._sock.listen(4096)
        self._sock.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def asked(self) -> list[Account]:
        """The connections that brought anything: the tap's knock does not."""
        return [account for account in self.connections if account.size]

    @property
    def open(self) -> int:
        """On how many connections the script still plays."""
        return sum(not account.over for account in list(self.connections))

    def close(self) -> None:
        """Stop listening, and cut what is open; the socket's name stays, as after a crash."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._sock.close()

    def cut(self) -> None:
        """Close all connections, as if the daemon had died; new ones are taken."""
        self.call(self._cut)

    def call(self, do: Callable[[], object]) -> None:
        """Do something where the scripts play."""
        self._loop.call_soon_threadsafe(do)

    async def hangup(self, sock: socket.socket) -> None:
        """Wait until the other side has closed a socket altogether (epoll_ctl(2), EPOLLHUP)."""
        future = asyncio.get_running_loop().create_future()
        self._hangups[sock.fileno()] = future
        self._epoll.register(sock.fileno(), 0)
        await future

    def _run(self) -> None:
        self._epoll = select.epoll()
        self._loop.add_reader(self._epoll.fileno(), self._hung_up)
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        for task in (accepting, *self._tasks):
            task.cancel()
        self._loop.run_until_complete(
            asyncio.gather(accepting, *self._tasks, return_exceptions=True)
        )
        self._loop.close()
        self._epoll.close()

    def _cut(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _hung_up(self) -> None:
        for number, _ in self._epoll.poll(0):
            self._epoll.unregister(number)
            future = self._hangups.pop(number)
            if not future.done():
                future.set_result(None)

    async def _accept(self) -> None:
        while True:
            sock, _ = await self._loop.sock_accept(self._sock)
            account = Account()
            self.connections.append(account)
            task = self._loop.create_task(self._serve(sock, account))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket, account: Account) -> None:
        sock.setblocking(False)
        try:
            with sock, contextlib.suppress(GoneError):
                await self._script(Connection(self, sock, account))
        finally:
            account.over = True


@contextlib.contextmanager
def upstream(directory: Path, script: Script) -> Iterator[Upstream]:
    """A fake daemon that listens in a directory of its own."""
    directory.mkdir(exist_ok=True)
    daemon = Upstream(directory, script)
    try:
        yield daemon
    finally:
        daemon.close()


# -- scripts


async def waits(connection: Connection) -> None:
    """Never answer; hear the client to its very end."""
    await connection.hangup()


def serving(respond: Callable[[Request], bytes]) -> Script:
    """A script that reads requests whole, counts them, and answers each until the client ends.

    Bodies have a Content-Length, or there is none.
    """

    async def script(connection: Connection) -> None:
        while True:
            head = await connection.head()
            length = _length(head)
            digest = await connection.skip(length)
            request = Request(head.partition(b"\r\n")[0], length, digest)
            connection.upstream.requests.append(request)
            await connection.send(respond(request))
            if b"\r\nconnection: close\r\n" in head.lower():
                return

    return script


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
