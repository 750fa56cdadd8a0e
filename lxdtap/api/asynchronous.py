"""The API for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from lxdtap.api.common import Answer, BaseAPI, Params, Timeout
from lxdtap.api.exchange import BrokenOffError, Exchange, Line
from lxdtap.api.result import APIConnectionError, Result
from lxdtap.log.entries import TransactionEntry
from lxdtap.transaction import Transaction


class AsyncAPIResult(Result):
    """The result of a call of :class:`AsyncAPI`.

    Attributes:
        api: the API that was called; None after pickling.
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
        assert self.api is not None, "a result that was pickled cannot wait"
        url = self.wait_url(self.api.default_timeout if timeout is None else timeout)
        return self if url is None else await self.api.get(url)

    def __getstate__(self) -> dict[str, Any]:
        """All but the API, whose connections cannot be pickled."""
        return self.__dict__ | {"api": None}


class AsyncAPIStream(AsyncAPIResult):
    """A result whose body is read as it comes, as asked for by ``stream=True``.

    Its ``data`` and ``metadata`` are None. Use it in ``async with``, or read it to its end.
    """

    def __init__(self, api: AsyncAPI, answer: Answer, exchange: Exchange) -> None:
        super().__init__(api, answer)
        self._exchange = exchange
        self._told = api._ended  # noqa: SLF001 - one thing with its API

    async def iter_content(self, chunk_size: int = 1 << 16) -> AsyncIterator[bytes]:
        """The body in pieces of ``chunk_size`` bytes at most.

        Raises:
            APIConnectionError: the connection ended before the body did.
        """
        try:
            async for piece in self._exchange.pieces(chunk_size):
                yield piece
        except BrokenOffError as error:
            raise APIConnectionError(self.request, error.reason) from error
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the exchange, however far it is."""
        transaction = await self._exchange.close()
        if self._entry is None:
            self._entry = self._told(transaction)

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

    _line: Line | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see below
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: Timeout = None,  # noqa: ASYNC109 - as in requests
    ) -> AsyncAPIResult:
        """Ask the daemon, and see that it reports no error; arguments as in :meth:`API.request`.

        Also takes an asynchronous iterable of bytes as ``data``. With ``stream=True`` it returns an
        :class:`AsyncAPIStream`.

        Raises:
            APIException: the daemon reported an error; HTTP 404: APINotFoundException.
            APIConnectionError: the connection broke off.
            TimeoutError: ``timeout`` passed.
        """
        answer = await self._perform(
            self._here(),
            self._print,
            method,
            url,
            params=params,
            data=data,
            json=json,
            headers=headers,
            stream=stream,
            timeout=timeout,
        )
        if answer.exchange is not None:
            return AsyncAPIStream(self, answer, answer.exchange)
        result = AsyncAPIResult(self, answer)
        result.validate()
        return result

    async def get(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``GET``; arguments as in :meth:`request`."""
        return await self.request("GET", url, **kwargs)

    async def post(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``POST``; arguments as in :meth:`request`."""
        return await self.request("POST", url, **kwargs)

    async def put(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``PUT``; arguments as in :meth:`request`."""
        return await self.request("PUT", url, **kwargs)

    async def patch(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``PATCH``; arguments as in :meth:`request`."""
        return await self.request("PATCH", url, **kwargs)

    async def delete(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``DELETE``; arguments as in :meth:`request`."""
        return await self.request("DELETE", url, **kwargs)

    async def head(self, url: str, **kwargs: Any) -> AsyncAPIResult:  # noqa: ANN401
        """``HEAD``; arguments as in :meth:`request`."""
        return await self.request("HEAD", url, **kwargs)

    async def aclose(self) -> None:
        """Break off what is under way. The API can be used again."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()

    def _here(self) -> Line:
        """The line on the running loop; another where the last one's loop is over."""
        loop = asyncio.get_running_loop()
        if self._line is None or self._line.loop is not loop:
            self._line = Line(self._upstream(), loop)
        return self._line

    def _ended(self, transaction: Transaction | None) -> TransactionEntry | None:
        return self._tell(transaction, self._print)
