"""The API for everybody else: a loop in a thread of its own, on which the calls are made.

So it can be used from several threads, inside a running event loop, and after a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from typing import Any, Self, TypeVar

from lxdtap.api.common import Answer, BaseAPI, Params, Timeout
from lxdtap.api.exchange import BrokenOffError, Exchange, Line
from lxdtap.api.result import APIConnectionError, Result
from lxdtap.log.entries import TransactionEntry
from lxdtap.tap.upstream import Upstream

T = TypeVar("T")


class APIResult(Result):
    """The result of a call of :class:`API`.

    Attributes:
        api: the API that was called; None after pickling.

    Example:
        .. code-block:: python

            result = api.put("instances/c1/state", json={"action": "start"})
            result.wait()
    """

    def __init__(self, api: API | None, answer: Answer) -> None:
        super().__init__(answer.request, answer.response, answer.entry)
        self.api = api

    def wait(self, timeout: float | None = None) -> APIResult:
        """Wait until the operation that this call began has ended.

        Args:
            timeout: seconds that LXD is asked to wait; None: the API's ``default_timeout``;
                -1: without end. An operation that still goes on then is returned as it is.

        Returns:
            The result of the wait; this result, where the call began no operation.

        Raises:
            APIException: the operation failed.
        """
        assert self.api is not None, "a result that was pickled cannot wait"
        url = self.wait_url(self.api.default_timeout if timeout is None else timeout)
        return self if url is None else self.api.get(url)

    def __getstate__(self) -> dict[str, Any]:
        """All but the API, whose connections cannot be pickled."""
        return self.__dict__ | {"api": None}


class APIStream(APIResult):
    """A result whose body is read as it comes, as asked for by ``stream=True``.

    Its ``data`` and ``metadata`` are None. Use it in ``with``, or read it to its end.

    Example:
        .. code-block:: python

            with api.get("images/…/export", stream=True) as image, open("image", "wb") as file:
                for piece in image.iter_content():
                    file.write(piece)
    """

    def __init__(self, api: API, answer: Answer, exchange: Exchange) -> None:
        super().__init__(api, answer)
        self._exchange = exchange

    def iter_content(self, chunk_size: int = 1 << 16) -> Iterator[bytes]:
        """The body in pieces of ``chunk_size`` bytes at most.

        Raises:
            APIConnectionError: the connection ended before the body did.
        """
        assert self.api is not None, "a result that was pickled has no connection"
        pieces = self._exchange.pieces(chunk_size)
        try:
            while (piece := self.api._await(_next(pieces))) is not None:  # noqa: SLF001
                yield piece
        except BrokenOffError as error:
            raise APIConnectionError(self.request, error.reason) from error
        finally:
            self.close()

    def close(self) -> None:
        """End the exchange, however far it is."""
        if self.api is not None and self._entry is None:
            self._entry = self.api._ended(self._exchange)  # noqa: SLF001 - one thing with its API

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class API(BaseAPI):
    """Calls to a daemon, each shown as DEBUG text if wanted.

    Args:
        endpoint: where the daemon is, as a URL; see :meth:`factory`, which takes more.
        default_version: of the API, for URLs that name none.
        debug: print each transaction; None: if the environment has ``DEBUG``.
        output: a text stream to print to; None: stdout.
        show_secrets: print credentials as they are.
        cert: for https, the files of a client certificate and of its key, in PEM.
        verify: for https, the file of the server's certificate, in PEM, where it is not signed by
            one of the system's authorities.

    Example:
        .. code-block:: python

            api = API.factory(debug=True)
            api.put("instances/c1/state", json={"action": "stop"}).wait(timeout=60)
    """

    _thread: _Thread | None = None
    _forsaken: _Thread | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see below
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: Timeout = None,
    ) -> APIResult:
        """Ask the daemon, and see that it reports no error.

        Ctrl-C ends the call, and its connection.

        Args:
            method: such as ``GET``.
            url: see :meth:`format_url`.
            params: the query's names and values; a list of values makes several; None is left out.
            data: the body: bytes, text, an open binary file or an iterable of bytes, which are sent
                piece by piece, or a mapping, sent as a form.
            json: the body, to be sent as JSON.
            headers: to send besides.
            stream: return as soon as the response's head has come, with an
                :class:`APIStream`, whose body is read by ``iter_content()``.
            timeout: seconds for the whole call, or for connecting and reading, as in requests,
                of which the longer counts; None: no limit.

        Raises:
            APIException: the daemon reported an error; HTTP 404: APINotFoundException.
            APIConnectionError: the connection broke off.
            TimeoutError: ``timeout`` passed.

        Example:
            .. code-block:: python

                with open("image.tar.gz", "rb") as file:
                    operation = api.request("POST", "images", data=file)
        """
        texts: list[str] = []
        try:
            answer = self._await(
                self._perform(
                    self._line(),
                    texts.append,
                    method,
                    url,
                    params=params,
                    data=data,
                    json=json,
                    headers=headers,
                    stream=stream,
                    timeout=timeout,
                )
            )
        finally:
            for text in texts:
                self._print(text)
        if answer.exchange is not None:
            return APIStream(self, answer, answer.exchange)
        result = APIResult(self, answer)
        result.validate()
        return result

    def get(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``GET``; arguments as in :meth:`request`."""
        return self.request("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``POST``; arguments as in :meth:`request`."""
        return self.request("POST", url, **kwargs)

    def put(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``PUT``; arguments as in :meth:`request`."""
        return self.request("PUT", url, **kwargs)

    def patch(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``PATCH``; arguments as in :meth:`request`."""
        return self.request("PATCH", url, **kwargs)

    def delete(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``DELETE``; arguments as in :meth:`request`."""
        return self.request("DELETE", url, **kwargs)

    def head(self, url: str, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``HEAD``; arguments as in :meth:`request`."""
        return self.request("HEAD", url, **kwargs)

    def close(self) -> None:
        """Break off what is under way, and end the thread. The API can be used again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # -- inside

    def _line(self) -> Line:
        return self._running().line

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._running().result_of(work)

    def _ended(self, exchange: Exchange) -> TransactionEntry | None:
        return self._tell(self._await(exchange.close()), self._print)

    def _running(self) -> _Thread:
        """The thread with the loop; another one in a process that was forked."""
        thread = self._thread
        if thread is not None and thread.pid == os.getpid():
            return thread
        if thread is not None:
            # The parent's: never used nor closed here, as its epoll is shared with the parent.
            self._forsaken = thread
            self._lock = threading.Lock()  # which may have been taken when it forked
        with self._lock:
            if self._thread is thread:
                self._thread = _Thread(self._upstream())
                weakref.finalize(self, self._thread.stop)
            assert self._thread is not None
            return self._thread


class _Thread:
    """An event loop in a thread, with a line to the daemon."""

    line: Line
    _loop: asyncio.AbstractEventLoop

    def __init__(self, upstream: Upstream) -> None:
        self.pid = os.getpid()
        self._upstream = upstream
        self._up = threading.Event()
        self._stop = asyncio.Event()
        main = self._main()
        self._thread = threading.Thread(
            target=asyncio.run, args=(main,), name="lxdtap", daemon=True
        )
        self._thread.start()
        self._up.wait()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.line = Line(self._upstream, self._loop)
        self._up.set()
        await self._stop.wait()
        self.line.close()

    def result_of(self, work: Coroutine[Any, Any, T]) -> T:
        """Do this on the loop, and wait for what it comes to."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # where it was us who were interrupted
            raise

    def stop(self) -> None:
        """Break off what is under way, and end the thread."""
        if self.pid != os.getpid() or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
