"""One exchange over the request core: aiohttp asks, the core relays and sees what the tap sees.

aiohttp speaks HTTP at one end of a pair of sockets, and the core taps the other, as it would any
client. So the transaction, its DEBUG text and its recording are made where the tap makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict

from lxdtap.api.body import Pieces
from lxdtap.tap.core import Core
from lxdtap.tap.upstream import Upstream
from lxdtap.transaction import CAPTURE, Finished, Open, Peer, Transaction
from lxdtap.wire.events import Event
from lxdtap.wire.fold import Fold

LONGEST_HEAD = 1 << 20
"""Bytes of a line of a response's head, and of a header, that are accepted."""
CLOSED = "broke off: the API was closed"
_TICK = 0.2

GoesOn = Callable[[Open], None]
"""Is told of what has been under way for a while."""


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask.

    Attributes:
        method: in capitals.
        target: path and query, as they go on the wire.
        host: the Host header.
        headers: the caller's.
        body: bytes, or their pieces as they come.
        length: the body's size in bytes, where that is known beforehand.
        patience: seconds for which nothing may happen; None: any.
    """

    method: str
    target: str
    host: str
    headers: CIMultiDict[str]
    body: bytes | Pieces | None = None
    length: int | None = None
    patience: float | None = None


class Line:
    """A core for calls of our own, on one event loop.

    Args:
        upstream: the daemon.
        loop: runs it.
        numbers: of its connections.
        record: is told of every event.
    """

    def __init__(
        self,
        upstream: Upstream,
        loop: asyncio.AbstractEventLoop,
        numbers: Iterator[int],
        record: Callable[[Event], None] | None = None,
    ) -> None:
        self.loop = loop
        self._exchanges: dict[int, Exchange] = {}
        self._open: set[Exchange] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._core = Core(upstream, self._hear, loop, numbers=numbers)
        self._record = record
        self._fold = Fold(CAPTURE)
        self._me = Peer(os.getpid(), os.geteuid(), os.getegid())
        self._closed = self._ticking = False

    def exchange(self, call: Call, goes_on: GoesOn) -> Exchange:
        """An exchange that has not begun."""
        exchange = Exchange(self, call, goes_on)
        self._open.add(exchange)
        return exchange

    def forget(self, exchange: Exchange) -> None:
        """It is closed."""
        self._open.discard(exchange)

    def serve(self, sock: socket.socket, exchange: Exchange) -> None:
        """Tap the far end of an exchange's connection, and tell it of its transaction.

        Raises:
            BrokenOffError: this line is closed.
        """
        if self._closed:
            sock.close()
            raise BrokenOffError(CLOSED)
        number = self._core.serve(sock, self._me, lambda: self._over(number, None))
        self._exchanges[number] = exchange
        self._start_ticking()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do this, whether or not somebody waits for it; at the latest, :meth:`aclose` does."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def aclose(self, patience: float = 1) -> None:
        """Break off what is under way, and let it end, for so many seconds at most."""
        if self._closed:
            return
        self._closed = True
        self._core.close()
        for number in list(self._exchanges):
            self._over(number, None)
        for exchange in list(self._open):
            exchange.leave()
            self.start(exchange.close())
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
        await asyncio.sleep(0)  # for what the core's own sockets have yet to hear

    # -- inside

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # for whoever waits for it; if nobody does, it is not to be reported

    def _hear(self, event: Event) -> None:
        if self._record is not None:
            self._record(event)
        for update in self._fold.add(event):
            if isinstance(update, Finished):
                self._over(update.transaction.connection, update.transaction)

    def _over(self, number: int, transaction: Transaction | None) -> None:
        exchange = self._exchanges.pop(number, None)
        if exchange is not None:
            exchange.over(transaction)

    def _start_ticking(self) -> None:
        if not self._ticking:
            self._ticking = True
            self.loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for update in self._fold.tick(time.monotonic_ns()):
            if isinstance(update, Open) and (
                exchange := self._exchanges.get(update.transaction.connection)
            ):
                exchange.goes_on(update)
        if self._exchanges:
            self._start_ticking()


class BrokenOffError(Exception):
    """The connection ended too early."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Exchange:
    """A request and its response, while it is read. To be closed in the end."""

    def __init__(self, line: Line, call: Call, goes_on: GoesOn) -> None:
        self.line = line
        self.goes_on = goes_on
        self.patience = call.patience
        self._call = call
        self._response: aiohttp.ClientResponse | None = None
        self._session: aiohttp.ClientSession | None = None
        self._transaction: asyncio.Future[Transaction | None] | None = None
        self._far: socket.socket | None = None

    async def send(self) -> tuple[int, CIMultiDict[str]]:
        """Send the request; status and headers of the response, once its head has come.

        Raises:
            BrokenOffError: the connection ended before that.
            TimeoutError: nothing happened for too long.
        """
        call = self._call
        self._session = _session(_Connector(self))
        try:
            async with asyncio.timeout(self.patience) as clock:
                self._response = await self._session.request(
                    call.method,
                    yarl.URL(f"http://{call.host}{call.target}", encoded=True),
                    headers=_headers(call),
                    data=self._watched(clock),
                    skip_auto_headers=("Content-Type",),
                    allow_redirects=False,
                )
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(_words(error)) from error
        finally:
            if isinstance(call.body, Pieces):
                call.body.waits = lambda _waiting: None
        return self._response.status, CIMultiDict(self._response.headers)

    async def read(self) -> bytes:
        """The whole body; raises as :meth:`piece`."""
        pieces = []
        while piece := await self.piece(1 << 18):
            pieces.append(piece)
        return b"".join(pieces)

    async def piece(self, size: int) -> bytes:
        """The body's next ``size`` bytes at most; empty at its end.

        Raises:
            BrokenOffError: its end is missing.
            TimeoutError: nothing came for too long.
        """
        assert self._response is not None
        try:
            async with asyncio.timeout(self.patience):
                return await self._response.content.read(size)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(_words(error)) from error

    async def close(self) -> Transaction | None:
        """End it; the transaction that it was, None where nothing was sent."""
        self.line.forget(self)
        if self._response is not None:
            self._response.close()
        if self._session is not None:
            await self._session.close()
        return None if self._transaction is None else await asyncio.shield(self._transaction)

    async def connected(self) -> ResponseHandler:
        """The near end of a connection of its own through the core."""
        if self._transaction is not None:
            # aiohttp sends some requests again when their connection is cut. We never do.
            raise aiohttp.ServerDisconnectedError("the daemon closed the connection")
        here, there = socket.socketpair()
        here.setblocking(False)
        loop = self.line.loop
        try:
            self.line.serve(there, self)
        except BaseException:
            here.close()
            raise
        self._far = there
        self._transaction = loop.create_future()
        _, protocol = await loop.create_unix_connection(lambda: _Near(loop, here), sock=here)
        return protocol

    def leave(self) -> None:
        """The core is closed. It has not closed what it had only just been given."""
        if self._far is not None:
            self._far.close()

    def over(self, transaction: Transaction | None) -> None:
        """The core has seen its end."""
        if self._transaction is not None and not self._transaction.done():
            self._transaction.set_result(transaction)

    # -- inside

    def _watched(self, clock: asyncio.Timeout) -> bytes | Pieces | None:
        """The body; while its maker is waited for, the clock stands, and then starts again."""
        body, patience = self._call.body, self.patience
        if patience is not None and isinstance(body, Pieces):

            def waits(waiting: bool) -> None:
                if not clock.expired():
                    clock.reschedule(None if waiting else self.line.loop.time() + patience)

            body.waits = waits
        return body


class _Connector(aiohttp.BaseConnector):
    """Makes one connection, through the core, and closes it after its exchange."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(loop=exchange.line.loop, force_close=True)
        self._exchange = exchange

    async def _create_connection(self, *_arguments: Any) -> ResponseHandler:  # noqa: ANN401
        return await self._exchange.connected()


class _Near(ResponseHandler):
    """The near end. When it is closed the core hears it, even where a fork holds a copy of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        super().__init__(loop)
        self._sock = sock

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is about to be closed."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().connection_lost(exc)


def _session(connector: _Connector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None),
        max_line_size=LONGEST_HEAD,
        max_field_size=LONGEST_HEAD,
        trust_env=False,
    )


def _headers(call: Call) -> CIMultiDict[str]:
    given = call.headers.copy()
    if call.length is not None:
        given.setdefault("Content-Length", str(call.length))
    return given


def _words(error: BaseException) -> str:
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return f"broke off: {said}"
