"""What :class:`~lxdtap.api.API` and :class:`~lxdtap.api.AsyncAPI` share."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self, TextIO

from multidict import CIMultiDict

from lxdtap import __version__
from lxdtap.api import endpoints
from lxdtap.api.body import body
from lxdtap.api.exchange import BrokenOffError, Call, Exchange, Line
from lxdtap.api.result import APIConnectionError, APIRequest, APIResponse
from lxdtap.log import debugformat
from lxdtap.log.entries import TransactionEntry
from lxdtap.log.journal import Journal, Selection
from lxdtap.transaction import Finished, Transaction

Params = Mapping[str, Any] | Sequence[tuple[str, Any]]
Timeout = float | tuple[float | None, float | None] | None
Show = Callable[[str], None]


class Answer(NamedTuple):
    """What a call came to; ``exchange`` is there while its body is not read."""

    request: APIRequest
    response: APIResponse
    entry: TransactionEntry | None = None
    exchange: Exchange | None = None


class BaseAPI:
    """What both need to know, and how a call is made.

    Attributes:
        endpoint: the daemon's address in URLs, such as
            ``http+unix://%2Fvar%2Flib%2Flxd%2Funix.socket``.
        default_version: of the API, for URLs that name none.
        debug: whether each transaction is printed.
    """

    default_timeout: float = 30
    """Seconds that a result's ``wait()`` asks LXD to wait, unless told."""

    def __init__(
        self,
        endpoint: str,
        default_version: str = "1.0",
        *,
        debug: bool | None = None,
        output: TextIO | None = None,
        show_secrets: bool = False,
        cert: tuple[str, str] | None = None,
        verify: str | None = None,
    ) -> None:
        self.default_version = default_version
        self.debug = bool(os.environ.get("DEBUG")) if debug is None else debug
        self._output = output
        self._upstream = functools.partial(endpoints.upstream, endpoint, cert, verify)
        self._host = endpoints.host(endpoint)
        self.endpoint = self._upstream().base
        self._journal = Journal(Selection(secrets=show_secrets))
        self._lock = threading.Lock()

    @classmethod
    def factory(
        cls,
        endpoint: str | None = None,
        default_version: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the constructor's
    ) -> Self:
        """An API for a daemon.

        Args:
            endpoint: a socket's path, ``http+unix://…``, or ``https://host:8443``; None: the
                daemon that ``LXD_SOCKET``, ``LXD_DIR``, ``INCUS_SOCKET`` or ``INCUS_DIR`` name,
                else the first of the usual places that has one.
            default_version: of the API; None: ``1.0``.
            kwargs: the constructor's other arguments.

        Raises:
            NoDaemonError: there is none. A path that does not exist raises one that is a
                ``RuntimeError`` too.
        """
        found = endpoints.find(endpoint, os.environ)
        return cls(found, default_version or "1.0", **kwargs)

    def format_url(self, url: str) -> str:
        """The whole URL of ``images``, ``/1.0/images``, or a whole URL of this daemon's.

        Example:
            >>> from lxdtap import API
            >>> API("http+unix://%2Flxd").format_url("images")
            'http+unix://%2Flxd/1.0/images'
        """
        return self.endpoint + self._target(url)

    # -- inside

    def _target(self, url: str) -> str:
        url = url.removeprefix(self.endpoint)
        return url if url.startswith("/") else f"/{self.default_version}/{url}"

    async def _perform(
        self,
        line: Line,
        show: Show,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see AsyncAPI.request
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: Timeout = None,  # noqa: ASYNC109 - as in requests
    ) -> Answer:
        sent = body(data, json)
        given = sent.headers | {"User-Agent": f"lxdtap/{__version__}"} | dict(headers or {})
        target = self._target(url) + _query(url, params)
        asked = APIRequest(method.upper(), self.endpoint + target, sent.whole, given)
        call = Call(asked.method, target, self._host, given, sent.content, sent.length)
        async with asyncio.timeout(_seconds(timeout)):
            return await self._exchange(line, show, asked, call, stream=stream)

    async def _exchange(
        self, line: Line, show: Show, asked: APIRequest, call: Call, *, stream: bool
    ) -> Answer:
        try:
            exchange = await line.send(call)
            status, headers = exchange.response.status, CIMultiDict(exchange.response.headers)
            if stream and status < 400:
                return Answer(asked, APIResponse(status, headers), exchange=exchange)
            try:
                content = await exchange.read()
            finally:
                transaction = await exchange.close()
        except BrokenOffError as error:
            entry = self._tell(error.transaction, show)
            raise APIConnectionError(_without_secrets(asked, entry), error.reason) from error
        return Answer(asked, APIResponse(status, headers, content), self._tell(transaction, show))

    def _tell(self, transaction: Transaction | None, show: Show) -> TransactionEntry | None:
        """Explain a transaction that is finished, and show it if that is wanted."""
        if transaction is None:
            return None
        with self._lock:
            (entry,) = self._journal.hear(Finished(transaction))
        assert isinstance(entry, TransactionEntry)
        if self.debug:
            show(debugformat.text(entry))
        return entry

    def _print(self, text: str) -> None:
        output = self._output or sys.stdout
        output.write(text)
        output.flush()


def _query(url: str, params: Params | None) -> str:
    if not params:
        return ""
    pairs = params.items() if isinstance(params, Mapping) else params
    given = [(name, value) for name, value in pairs if value is not None]
    text = urllib.parse.urlencode(given, doseq=True)
    return f"{'&' if '?' in url else '?'}{text}" if text else ""


def _seconds(timeout: Timeout) -> float | None:
    if not isinstance(timeout, tuple):
        return timeout
    connect, read = timeout
    return None if connect is None or read is None else max(connect, read)


def _without_secrets(asked: APIRequest, entry: TransactionEntry | None) -> APIRequest:
    return asked if entry is None else APIRequest(asked.method, entry.transaction.url)
