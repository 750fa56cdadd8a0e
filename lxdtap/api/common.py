"""What :class:`~lxdtap.api.API` and :class:`~lxdtap.api.AsyncAPI` share."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import sys
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TextIO

from multidict import CIMultiDict

from lxdtap import __version__
from lxdtap.api import endpoints
from lxdtap.api.body import Body, Do, body
from lxdtap.api.exchange import BrokenOffError, Call, Exchange, Line
from lxdtap.api.result import APIConnectionError, APIRequest, APIResponse
from lxdtap.log import debugformat
from lxdtap.log.entries import TransactionEntry
from lxdtap.log.journal import Journal, Selection
from lxdtap.redact import Redactor
from lxdtap.transaction import Finished, Open, Transaction, header

if TYPE_CHECKING:
    from lxdtap.record.direct import DirectRecording

Params = Mapping[str, Any] | Sequence[tuple[str, Any]] | str
Timeout = float | tuple[float | None, float | None] | None
Show = Callable[[str], None]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AS_IT_IS = "!$%&'()*+,/:;=?@[]~"
"""Characters of a target that mean what they are; all else but word characters is escaped."""


class Answer(NamedTuple):
    """What a call came to; ``exchange`` is there while its body is not read."""

    request: APIRequest
    response: APIResponse
    entry: TransactionEntry | None = None
    exchange: Exchange | None = None


class Caller(NamedTuple):
    """What a call leaves to the one who made it.

    Attributes:
        show: prints DEBUG text.
        do: does what may take its time: to read a file, or ask a generator.
    """

    show: Show
    do: Do


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
        endpoint: str | None = None,
        default_version: str = "1.0",
        *,
        debug: bool | None = None,
        output: TextIO | None = None,
        show_secrets: bool = False,
        cert: tuple[str, str] | None = None,
        verify: str | None = None,
        cassette: str | None = None,
        record: str | None = None,
    ) -> None:
        self.default_version = default_version
        self.debug = bool(os.environ.get("DEBUG")) if debug is None else debug
        self._output = output
        self._upstream, self._host = endpoints.way(endpoint, cert, verify, cassette)
        self.endpoint = self._upstream().base
        self._show_secrets = show_secrets
        redactor = Redactor()
        self._journal = Journal(Selection(secrets=show_secrets), redactor=redactor)
        self._numbers = itertools.count(1)
        self._recording = None if record is None else _recording(self, record, redactor)
        self._locks: dict[int, threading.Lock] = {}

    @classmethod
    def factory(
        cls,
        endpoint: str | None = None,
        default_version: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - the constructor's
    ) -> Self:
        """An API for a daemon.

        Args:
            endpoint: a socket's path or its directory, ``unix://…``, ``http+unix://…``, or
                ``https://host:8443``; None: the daemon that ``LXD_SOCKET``, ``LXD_DIR``,
                ``INCUS_SOCKET`` or ``INCUS_DIR`` name, else the first of the usual places that has
                one.
            default_version: of the API; None: ``1.0``.
            kwargs: the constructor's other arguments.

        Raises:
            NoDaemonError: there is none. A path that does not exist raises one that is a
                ``RuntimeError`` too.
        """
        return cls(endpoint, default_version or "1.0", **kwargs)

    def format_url(self, url: str) -> str:
        """The whole URL of ``images``, ``/1.0/images``, or a whole URL of this daemon's.

        What no URL may hold, such as a space, is escaped.

        Raises:
            ValueError: it is a URL of some other place.

        Example:
            >>> from lxdtap import API
            >>> API("http+unix://%2Flxd").format_url("images")
            'http+unix://%2Flxd/1.0/images'
        """
        return self.endpoint + self._target(url)

    # -- inside

    def _new_line(self, loop: asyncio.AbstractEventLoop) -> Line:
        record = None if self._recording is None else self._recording.hear
        return Line(self._upstream(), loop, self._numbers, record)

    def _save(self) -> None:
        """Make the cassette of what was recorded, if anything is; nothing more is."""
        if self._recording is not None:
            self._recording.close()

    def _target(self, url: str) -> str:
        rest = url.removeprefix(self.endpoint)
        if rest != url and rest[:1] in ("", "/", "?"):
            url = rest or "/"
        elif _SCHEME.match(url):
            raise ValueError(f"{self._clean(url)!r} is no URL of the daemon at {self.endpoint}")
        if not url.startswith("/"):
            gap = "" if url[:1] in ("", "?") else "/"
            url = f"/{self.default_version}{gap}{url}"
        return urllib.parse.quote(url, safe=_AS_IT_IS, errors="surrogateescape")

    async def _perform(
        self,
        line: Line,
        caller: Caller,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see AsyncAPI.request
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        headers: Mapping[str, Any] | None = None,
        stream: bool = False,
        timeout: Timeout = None,  # noqa: ASYNC109 - as in requests
    ) -> Answer:
        sent = body(data, json, caller.do)
        given = _headers(sent, headers)
        target = self._target(url)
        target += _query(target, params)
        asked = APIRequest(method.upper(), self.endpoint + target, sent.whole, given)
        call = Call(
            asked.method, target, self._host, given, sent.content, sent.length, _seconds(timeout)
        )
        exchange = line.exchange(call, functools.partial(self._tell_open, caller.show))
        try:
            return await self._exchange(exchange, caller.show, asked, sent, stream=stream)
        except TimeoutError:
            raise sent.error or timed_out(self._shown(asked, None), exchange) from None

    async def _exchange(
        self, exchange: Exchange, show: Show, asked: APIRequest, sent: Body, *, stream: bool
    ) -> Answer:
        try:
            status, headers = await exchange.send()
            if stream and status < 400:
                return Answer(asked, APIResponse(status, headers), exchange=exchange)
            content = await exchange.read()
        except BrokenOffError as error:
            if sent.error is not None:
                await self._given_up(exchange, show)
                raise sent.error from None
            return await self._broke_off(exchange, show, asked, error.reason, stream=stream)
        except BaseException:
            await self._given_up(exchange, show)
            raise
        entry = self._tell(await exchange.close(), show)
        if entry is not None and entry.transaction.own:
            raise APIConnectionError(self._shown(asked, entry), _own_words(entry))
        return Answer(asked, APIResponse(status, headers, content), entry)

    async def _broke_off(
        self, exchange: Exchange, show: Show, asked: APIRequest, reason: str, *, stream: bool
    ) -> Answer:
        """What came all the same, if it is whole; else the error."""
        transaction = await exchange.close()
        entry = self._tell(transaction, show)
        answer = transaction and _early_answer(transaction)
        if answer and not (stream and answer.status_code < 400):
            return Answer(asked, answer, entry)
        why = (transaction and transaction.broken) or reason
        raise APIConnectionError(self._shown(asked, entry), why) from None

    async def _given_up(self, exchange: Exchange, show: Show) -> None:
        """Nobody waits for it any more. The daemon is heard for a moment yet: see the relay."""
        ending = exchange.line.start(self._ended(exchange, show))
        if self.debug:
            await asyncio.shield(ending)

    async def _ended(self, exchange: Exchange, show: Show) -> TransactionEntry | None:
        """End an exchange, and tell of it."""
        return self._tell(await exchange.close(), show)

    def _tell(self, transaction: Transaction | None, show: Show) -> TransactionEntry | None:
        """Explain a transaction that is finished, and show it if that is wanted."""
        return None if transaction is None else self._hear(Finished(transaction), show)

    def _tell_open(self, show: Show, update: Open) -> None:
        if self.debug:
            self._hear(update, show)

    def _hear(self, update: Finished | Open, show: Show) -> TransactionEntry:
        with self._lock:
            (entry,) = self._journal.hear(update)
        assert isinstance(entry, TransactionEntry)
        if self.debug:
            show(debugformat.text(entry))
        return entry

    def _print(self, text: str) -> None:
        """Print DEBUG text. That it cannot be printed is no reason for a call to fail."""
        output = sys.stdout if self._output is None else self._output
        try:
            known = getattr(output, "encoding", None) or "utf-8"
            output.write(text.encode(known, "backslashreplace").decode(known))
            output.flush()
        except (AttributeError, OSError, ValueError):
            return

    @property
    def _lock(self) -> threading.Lock:
        """One for each process: a fork may have found the other one taken."""
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _clean(self, url: str) -> str:
        return url if self._show_secrets else Redactor().text(url)

    def _shown(self, asked: APIRequest, entry: TransactionEntry | None) -> APIRequest:
        """The request as error messages may show it."""
        url = self._clean(asked.url) if entry is None else entry.transaction.url
        return APIRequest(asked.method, url)


def _recording(api: BaseAPI, path: str, redactor: Redactor) -> DirectRecording:
    """A recording that is saved in the end, even where nobody closes the API."""
    from lxdtap.record.direct import DirectRecording

    recording = DirectRecording(path, redactor)
    weakref.finalize(api, recording.close)
    return recording


def timed_out(shown: APIRequest, exchange: Exchange) -> TimeoutError:
    """The error of an exchange that ran out of patience."""
    what = f"{shown.method} {shown.url}"
    return TimeoutError(f"{what} was given up: nothing happened for {exchange.patience:g} s")


def _headers(sent: Body, given: Mapping[str, Any] | None) -> CIMultiDict[str]:
    """The headers to send; a caller's None leaves one out, as in requests."""
    headers = CIMultiDict({"User-Agent": f"lxdtap/{__version__}"} | sent.headers)
    for name, value in (given or {}).items():
        headers.popall(name, None)
        if value is not None:
            headers[name] = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return headers


def _query(target: str, params: Params | None) -> str:
    if not params:
        return ""
    if isinstance(params, str):
        text = urllib.parse.quote(params, safe=_AS_IT_IS)
    else:
        pairs = params.items() if isinstance(params, Mapping) else params
        text = urllib.parse.urlencode([pair for given in pairs for pair in _pairs(*given)])
    return f"{'&' if '?' in target else '?'}{text}" if text else ""


def _pairs(name: str, given: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - one or several
    values = given if isinstance(given, (list, tuple, set, frozenset)) else [given]
    return [(name, value) for value in values if value is not None]


def _seconds(timeout: Timeout) -> float | None:
    if not isinstance(timeout, tuple):
        return timeout
    connect, read = timeout
    return None if connect is None or read is None else max(connect, read)


def _early_answer(transaction: Transaction) -> APIResponse | None:
    """A whole answer to a request that the daemon did not read to its end.

    It then closes the connection, and what is still being sent fails before the answer is read.
    """
    answer = transaction.response
    if answer is None or header(answer.headers, "content-encoding"):
        return None
    if header(answer.headers, "content-length") != str(len(answer.body.captured)):
        return None
    return APIResponse(answer.status, CIMultiDict(answer.headers), answer.body.captured)


def _own_words(entry: TransactionEntry) -> str:
    return f"cannot be asked: {entry.error.removeprefix('lxdtap: ')}"
