"""One exchange over the request core: aiohttp asks, the core relays and sees what the tap sees.

aiohttp speaks HTTP at one end of a pair of sockets, and the core taps the other, as it would any
client. So the transaction, its DEBUG text and its recording are made where the tap makes them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import yarl
from aiohttp.client_proto import ResponseHandler

from lxdtap.tap.core import Core
from lxdtap.tap.upstream import Upstream
from lxdtap.transaction import Finished, Peer, Transaction, Update

LONGEST_HEAD = 1 << 20
"""Bytes of a line of a response's head, and of a header, that are accepted."""


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
    """

    method: str
    target: str
    host: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] | None = None
    length: int | None = None


class Line:
    """A core for calls of our own, on one event loop."""

    def __init__(self, upstream: Upstream, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.upstream = upstream
        self._finished: dict[int, asyncio.Future[Transaction | None]] = {}
        self._core = Core(upstream, self._hear, loop)
        self._me = Peer(os.getpid(), os.geteuid(), os.getegid())

    async def send(self, call: Call) -> Exchange:
        """Send a request; return when the response's head has come.

        Raises:
            BrokenOffError: the connection ended before that.
        """
        connector = _Connector(self)
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None),
            max_line_size=LONGEST_HEAD,
            max_field_size=LONGEST_HEAD,
            trust_env=False,
        )
        exchange = Exchange(session, connector)
        try:
            exchange.response = await session.request(
                call.method,
                yarl.URL(f"http://{call.host}{call.target}", encoded=True),
                headers=_headers(call),
                data=call.body,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(_words(error), await exchange.close()) from error
        except BaseException:
            await session.close()
            raise
        return exchange

    def serve(self, sock: socket.socket) -> asyncio.Future[Transaction | None]:
        """Tap the far end of a connection of ours; its transaction, once that is over."""
        finished: asyncio.Future[Transaction | None] = self.loop.create_future()
        number = self._core.serve(sock, self._me, lambda: self._over(number, None))
        self._finished[number] = finished
        return finished

    def close(self) -> None:
        """Break off what is under way."""
        self._core.close()

    def _hear(self, update: Update) -> None:
        if isinstance(update, Finished):
            self._over(update.transaction.connection, update.transaction)

    def _over(self, number: int, transaction: Transaction | None) -> None:
        finished = self._finished.pop(number, None)
        if finished is not None and not finished.done():
            finished.set_result(transaction)


class BrokenOffError(Exception):
    """The connection ended too early; ``transaction`` is what was seen of it, if anything was."""

    def __init__(self, reason: str, transaction: Transaction | None) -> None:
        super().__init__(reason)
        self.reason = (transaction and transaction.broken) or reason
        self.transaction = transaction


class Exchange:
    """A request and its response, while it is read."""

    response: aiohttp.ClientResponse

    def __init__(self, session: aiohttp.ClientSession, connector: _Connector) -> None:
        self._session = session
        self._connector = connector

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            BrokenOffError: its end is missing.
        """
        return b"".join([piece async for piece in self.pieces(1 << 18)])

    async def pieces(self, size: int) -> AsyncIterator[bytes]:
        """The body in pieces of ``size`` bytes at most.

        Raises:
            BrokenOffError: its end is missing.
        """
        try:
            async for piece in self.response.content.iter_chunked(size):
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise BrokenOffError(_words(error), await self.close()) from error

    async def close(self) -> Transaction | None:
        """End it; the transaction that it was, None where nothing was sent."""
        await self._session.close()
        finished = self._connector.finished
        return None if finished is None else await finished


class _Connector(aiohttp.BaseConnector):
    """Makes one connection, through the core, and closes it after its exchange.

    Never kept alive: on a reused connection that was cut, aiohttp sends a request twice.
    """

    def __init__(self, line: Line) -> None:
        super().__init__(loop=line.loop, force_close=True)
        self.finished: asyncio.Future[Transaction | None] | None = None
        self._line = line

    async def _create_connection(self, *_arguments: Any) -> ResponseHandler:  # noqa: ANN401
        here, there = socket.socketpair()
        here.setblocking(False)
        self.finished = self._line.serve(there)
        loop = self._line.loop
        _, protocol = await loop.create_unix_connection(lambda: ResponseHandler(loop), sock=here)
        return protocol


def _headers(call: Call) -> dict[str, str]:
    given = dict(call.headers)
    names = {name.lower() for name in given}
    if call.length is not None and "content-length" not in names:
        given["Content-Length"] = str(call.length)
    return given


def _words(error: BaseException) -> str:
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return f"broke off: {said}"
