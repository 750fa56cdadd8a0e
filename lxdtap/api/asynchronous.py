"""The API for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Literal, Self, overload

from lxdtap.api.common import Answer, BaseAPI, Caller, Params, Timeout, timed_out
from lxdtap.api.exchange import BrokenOffError, Exchange, Line
from lxdtap.api.result import Result


class AsyncAPIResult(Result):
    """The result of a call of :class:`AsyncAPI`.

    Attributes:
        api: the API that was called; None after pickling.

    Example:
        .. code-block:: python

            result = await api.put("instances/c1/state", json={"action": "start"})
            await result.wait()
    """

    def __init__(self, api: AsyncAPI | None, answer: Answer) -> None:
        super().__init__(answer.request, answer.response, answer.entry)
        self.api = api

    async def wait(self, timeout: float | None = None) -> AsyncAPIResult:  # noqa: ASYNC109 - LXD's
        """Wait until the operation that this call began has ended.

        Args:
            timeout: seconds that LXD is asked to wait; None: the API's ``default_timeout``;
                -1: without end. An operation that still goes on then is returned as it is.

        Returns:
            The result of the wait; this result, where the call began no operation.

        Raises:
            APIException: the operation failed.
        """
        if self.api is None:
            raise RuntimeError("a result that was pickled cannot wait: it has no API any more")
        url = self.wait_url(self.api.default_timeout if timeout is None else timeout)
        return self if url is None else await self.api.get(url)

    def __getstate__(self) -> dict[str, Any]:
        """All but the API, whose connections cannot be pickled."""
        return self.__dict__ | {"api": None}


class AsyncAPIStream(AsyncAPIResult):
    """A result whose body is read as it comes, as asked for by ``stream=True``.

    Its ``data`` and ``metadata`` are None. Use it in ``async with``, or read it to its end.

    Example:
        .. code-block:: python

            async with await api.get("images/…/export", stream=True) as image:
                async for piece in image.iter_content():
                    file.write(piece)
    """

    _ending: weakref.finalize[[Exchange], AsyncAPIStream] | None = None

    def __init__(self, api: AsyncAPI, answer: Answer, exchange: Exchange) -> None:
        super().__init__(api, answer)
        self._exchange = exchange
        self._ending = weakref.finalize(self, _forget, exchange)
        self._ending.atexit = False

    async def iter_content(self, chunk_size: int = 1 << 16) -> AsyncIterator[bytes]:
        """The body in pieces of ``chunk_size`` bytes at most.

        Raises:
            APIConnectionError: the connection ended before the body did.
            TimeoutError: nothing came for the ``timeout`` of the call.
        """
        try:
            while piece := await self._exchange.piece(chunk_size):
                yield piece
        except BrokenOffError as error:
            await self.aclose()
            raise self._broke_off(error.reason) from None
        except TimeoutError:
            raise timed_out(self._shown, self._exchange) from None
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the exchange, however far it is."""
        if self._ending is not None and self._ending.detach() and self.api is not None:
            self._entry = await self.api._ended(self._exchange, self.api._print)  # noqa: SLF001

    def __getstate__(self) -> dict[str, Any]:
        """All but the connection."""
        return {
            k: v for k, v in super().__getstate__().items() if k not in ("_exchange", "_ending")
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()


class AsyncAPI(BaseAPI):
    """Calls to a daemon from asyncio; the same as :class:`API`, with ``await``.

    Example:
        .. code-block:: python

            async with AsyncAPI.factory() as api:
                result = await api.put("instances/c1/state", json={"action": "stop"})
                await result.wait(timeout=60)
    """

    @functools.cached_property
    def _lines(self) -> dict[asyncio.AbstractEventLoop, tuple[Line, AsyncGenerator[None, None]]]:
        """The line on each loop, and what ends it."""
        return {}

    async def request(
        self,
        method: str,
        url: str,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see below
        headers: Mapping[str, Any] | None = None,
        *,
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        stream: bool = False,
        timeout: Timeout = None,  # noqa: ASYNC109 - as in requests
    ) -> AsyncAPIResult:
        """Ask the daemon, and see that it reports no error; arguments as in :meth:`API.request`.

        Also takes an asynchronous iterable of bytes as ``data``. With ``stream=True`` it returns an
        :class:`AsyncAPIStream`.

        Raises:
            APIException: the daemon reported an error; HTTP 404: APINotFoundException.
            APIConnectionError: there is no daemon, or the connection broke off.
            TimeoutError: nothing came for ``timeout``.
        """
        line = await self._here()
        work = self._perform(
            line,
            Caller(self._print, asyncio.to_thread),
            method,
            url,
            params=params,
            data=data,
            json=json,
            headers=headers,
            stream=stream,
            timeout=timeout,
        )
        answer = await line.start(work)
        if answer.exchange is not None:
            return AsyncAPIStream(self, answer, answer.exchange)
        result = AsyncAPIResult(self, answer)
        result.validate()
        return result

    @overload
    async def get(
        self,
        url: str,
        *args: Any,  # noqa: ANN401 - request's
        stream: Literal[True],
        **kwargs: Any,  # noqa: ANN401 - request's
    ) -> AsyncAPIStream: ...

    @overload
    async def get(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult: ...  # noqa: ANN401

    async def get(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:
        """``GET``; arguments as in :meth:`request`."""
        return await self.request("GET", url, *args, **kwargs)

    async def post(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``POST``; arguments as in :meth:`request`."""
        return await self.request("POST", url, *args, **kwargs)

    async def put(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``PUT``; arguments as in :meth:`request`."""
        return await self.request("PUT", url, *args, **kwargs)

    async def patch(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``PATCH``; arguments as in :meth:`request`."""
        return await self.request("PATCH", url, *args, **kwargs)

    async def delete(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``DELETE``; arguments as in :meth:`request`."""
        return await self.request("DELETE", url, *args, **kwargs)

    async def head(self, url: str, *args: Any, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``HEAD``; arguments as in :meth:`request`."""
        return await self.request("HEAD", url, *args, **kwargs)

    async def aclose(self) -> None:
        """Break off what is under way. The API can be used again."""
        line, ending = self._lines.pop(asyncio.get_running_loop(), (None, None))
        if line is not None and ending is not None:
            await ending.aclose()
        self._save()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    async def _here(self) -> Line:
        """The line on the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._lines:
            for over in [each for each in self._lines if each.is_closed()]:
                del self._lines[over]
            line = self._new_line(loop)
            self._lines[loop] = line, _ending(line)
            await anext(self._lines[loop][1])
        return self._lines[loop][0]


async def _ending(line: Line) -> AsyncGenerator[None, None]:
    """Ends a line at the latest with its loop, which closes all generators (asyncio.run)."""
    try:
        yield
    finally:
        await line.aclose()


def _forget(exchange: Exchange) -> None:
    """End what nobody can read any more, where its loop is still there."""
    with contextlib.suppress(RuntimeError):
        loop = exchange.line.loop
        loop.call_soon_threadsafe(lambda: exchange.line.start(exchange.close()))
