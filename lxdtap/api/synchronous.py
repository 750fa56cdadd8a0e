"""The API for everybody else: a loop in a thread of its own, on which the calls are made.

So it can be used from several threads, inside a running event loop, and after a fork.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from typing import Any, Literal, Self, TypeVar, overload

from lxdtap.api import common
from lxdtap.api.common import Answer, BaseAPI, Params, Timeout
from lxdtap.api.exchange import CLOSED, BrokenOffError, Exchange, Line
from lxdtap.api.result import APIConnectionError, APIRequest, Result
from lxdtap.log.entries import TransactionEntry

T = TypeVar("T")

LAST_WORDS = 1.0
"""Seconds for which a call that was interrupted is waited for, where its DEBUG text is wanted."""


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
        if self.api is None:
            raise RuntimeError("a result that was pickled cannot wait: it has no API any more")
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

    _ending: weakref.finalize[[Exchange], APIStream] | None = None

    def __init__(self, api: API, answer: Answer, exchange: Exchange, thread: _Thread) -> None:
        super().__init__(api, answer)
        self._exchange = exchange
        self._thread = thread
        self._ending = weakref.finalize(self, thread.forget, exchange)
        self._ending.atexit = False

    def iter_content(self, chunk_size: int = 1 << 16) -> Iterator[bytes]:
        """The body in pieces of ``chunk_size`` bytes at most.

        Raises:
            APIConnectionError: the connection ended before the body did.
            TimeoutError: nothing came for the ``timeout`` of the call.
        """
        try:
            while piece := self._thread.result_of(self._exchange.piece(chunk_size), _Here()):
                yield piece
        except BrokenOffError as error:
            self.close()
            raise self._broke_off(error.reason) from None
        except TimeoutError:
            raise common.timed_out(self._shown, self._exchange) from None
        finally:
            self.close()

    def close(self) -> None:
        """End the exchange, however far it is."""
        if self._ending is not None and self._ending.detach() and self.api is not None:
            self._entry = self.api._ended_stream(self._exchange, self._thread)  # noqa: SLF001

    def __getstate__(self) -> dict[str, Any]:
        """All but the connection."""
        gone = {"_exchange", "_thread", "_ending"}
        return {k: v for k, v in super().__getstate__().items() if k not in gone}

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
        cassette: a recording to be played in the daemon's place; then there is no endpoint.
        record: the cassette to make of what is called; written by ``close()``, at the latest when
            the program ends. Nothing may be there yet.

    Example:
        .. code-block:: python

            api = API.factory(debug=True)
            api.put("instances/c1/state", json={"action": "stop"}).wait(timeout=60)
    """

    _thread: _Thread | None = None

    def request(
        self,
        method: str,
        url: str,
        params: Params | None = None,
        data: Any = None,  # noqa: ANN401 - see below
        headers: Mapping[str, Any] | None = None,
        *,
        json: Any = None,  # noqa: ANN401 - whatever JSON can hold
        stream: bool = False,
        timeout: Timeout = None,
    ) -> APIResult:
        """Ask the daemon, and see that it reports no error.

        Ctrl-C ends the call, and its connection.

        Args:
            method: such as ``GET``.
            url: see :meth:`format_url`.
            params: the query's names and values; a list of values makes several; None is left out.
            data: the body: bytes, text, an open file or an iterable of bytes, which are read by the
                calling thread and sent piece by piece, or a mapping, sent as a form.
            headers: to send besides; None as a value leaves a header out.
            json: the body, to be sent as JSON.
            stream: return as soon as the response's head has come, with an
                :class:`APIStream`, whose body is read by ``iter_content()``.
            timeout: seconds for which nothing may come, or a pair for connecting and reading, as
                in requests, of which the longer counts; None: no limit. Until a response's head
                comes, each piece of the body counts as something.

        Raises:
            APIException: the daemon reported an error; HTTP 404: APINotFoundException.
            APIConnectionError: there is no daemon, or the connection broke off.
            TimeoutError: nothing came for ``timeout``.

        Example:
            .. code-block:: python

                with open("image.tar.gz", "rb") as file:
                    operation = api.request("POST", "images", data=file)
        """
        here = _Here()
        caller = common.Caller(lambda text: here.hand(lambda: self._print(text)), here.do)
        thread = self._running()
        work = self._perform(
            thread.line,
            caller,
            method,
            url,
            params=params,
            data=data,
            json=json,
            headers=headers,
            stream=stream,
            timeout=timeout,
        )
        try:
            answer = thread.result_of(work, here, LAST_WORDS if self.debug else 0)
        except BrokenOffError as error:  # the API was closed by another thread
            asked = APIRequest(method.upper(), self._clean(self.format_url(url)))
            raise APIConnectionError(asked, error.reason) from None
        if answer.exchange is not None:
            return APIStream(self, answer, answer.exchange, thread)
        result = APIResult(self, answer)
        result.validate()
        return result

    @overload
    def get(
        self,
        url: str,
        *args: Any,  # noqa: ANN401 - request's
        stream: Literal[True],
        **kwargs: Any,  # noqa: ANN401 - request's
    ) -> APIStream: ...

    @overload
    def get(self, url: str, *args: Any, **kwargs: Any) -> APIResult: ...  # noqa: ANN401

    def get(self, url: str, *args: Any, **kwargs: Any) -> APIResult:
        """``GET``; arguments as in :meth:`request`."""
        return self.request("GET", url, *args, **kwargs)

    def post(self, url: str, *args: Any, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``POST``; arguments as in :meth:`request`."""
        return self.request("POST", url, *args, **kwargs)

    def put(self, url: str, *args: Any, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``PUT``; arguments as in :meth:`request`."""
        return self.request("PUT", url, *args, **kwargs)

    def patch(self, url: str, *args: Any, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``PATCH``; arguments as in :meth:`request`."""
        return self.request("PATCH", url, *args, **kwargs)

    def delete(self, url: str, *args: Any, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``DELETE``; arguments as in :meth:`request`."""
        return self.request("DELETE", url, *args, **kwargs)

    def head(self, url: str, *args: Any, **kwargs: Any) -> APIResult:  # noqa: ANN401
        """``HEAD``; arguments as in :meth:`request`."""
        return self.request("HEAD", url, *args, **kwargs)

    def close(self) -> None:
        """Break off what is under way, and end the thread. The API can be used again."""
        thread = self._thread
        if thread is not None and not thread.over:
            thread.ending()
        self._save()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    # -- inside

    def _ended_stream(self, exchange: Exchange, thread: _Thread) -> TransactionEntry | None:
        here = _Here()
        work = self._ended(exchange, lambda text: here.hand(lambda: self._print(text)))
        try:
            return thread.result_of(work, here)
        except BrokenOffError:  # the API was closed, and this with it
            return None

    def _running(self) -> _Thread:
        """The thread with the loop; another one in a process that was forked."""
        with self._lock:
            thread = self._thread
            if thread is None or thread.over:
                # One of the parent's is never used nor closed here: they share its epoll.
                thread = self._thread = _Thread(self._new_line, forsaken=thread)
                thread.ending = weakref.finalize(self, thread.stop)
            return thread


class _Here:
    """The calling thread: it waits for the loop's, and does meanwhile what is its own to do.

    Text is printed here. The body is read here, so that Ctrl-C ends that too, and nothing is left
    behind that would keep the program from ending.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._interrupted = False
        self._in_main = threading.current_thread() is threading.main_thread()

    @property
    def over(self) -> bool:
        """Whether it is done."""
        return self._task is not None and self._task.done()

    def began(self, task: asyncio.Task[Any]) -> None:
        """This is what we wait for."""
        self._task = task
        task.add_done_callback(lambda _: self._done())

    def cancel(self) -> None:
        """We wait for it no more."""
        if self._task is not None:
            self._task.cancel()

    def hand(self, job: Callable[[], None]) -> None:
        """Leave this to the calling thread."""
        self._jobs.put(job)

    async def do(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever comes of it
        """Have the calling thread do this; what comes of it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def job() -> None:
            if self._interrupted:
                return
            try:
                settle = partial(future.set_result, work())
            except Exception as error:  # noqa: BLE001 - whoever asked for it is told
                settle = partial(future.set_exception, error)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_settle, future, settle)

        self._jobs.put(job)
        return await future

    def _done(self) -> None:
        # When the program has ended, its daemon threads are not to wake up and complain.
        if self._in_main or threading.main_thread().is_alive():
            self._jobs.put(None)

    def wait(self) -> Any:  # noqa: ANN401 - whatever the task comes to
        """Do what is left to us until the task is done; what came of it."""
        while (job := self._jobs.get()) is not None:
            job()
        assert self._task is not None
        try:
            return self._task.result()
        except asyncio.CancelledError:
            raise BrokenOffError(CLOSED) from None

    def hear_out(self, seconds: float) -> None:
        """After an interruption: print what is still said, for so many seconds at most."""
        self._interrupted = True
        end = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while job := self._jobs.get(timeout=max(0, end - time.monotonic())):
                job()


def _settle(future: asyncio.Future[Any], settle: Callable[[], None]) -> None:
    if not future.done():
        settle()


class _Thread:
    """An event loop in a thread, with a line to the daemon."""

    ending: weakref.finalize[[], API]

    def __init__(
        self, make: Callable[[asyncio.AbstractEventLoop], Line], forsaken: _Thread | None = None
    ) -> None:
        self._pid = os.getpid()
        self._forsaken = forsaken
        self._lock = threading.Lock()
        self._stopping = False
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        try:
            self.line = make(self._loop)
        except BaseException:
            self._loop.close()
            raise
        self._thread = threading.Thread(target=self._run, name="lxdtap", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether nothing more can be done here: it was stopped, or is another process's."""
        return self._stopping or self._pid != os.getpid()

    def result_of(self, work: Coroutine[Any, Any, T], here: _Here, last_words: float = 0) -> T:
        """Do this on the loop, and wait for what it comes to.

        Raises:
            BrokenOffError: the API was closed, or it is another process's.
        """
        if not self._submit(lambda: here.began(self.line.start(work))):
            work.close()
            raise BrokenOffError(CLOSED)
        try:
            value: T = here.wait()
        finally:
            if not here.over:  # it was us who were interrupted
                self._submit(here.cancel)
                here.hear_out(last_words)
        return value

    def forget(self, exchange: Exchange) -> None:
        """End what nobody can read any more."""
        self._submit(lambda: self.line.start(exchange.close()))

    def stop(self) -> None:
        """Break off what is under way, and end the thread."""
        if self._pid != os.getpid():
            return
        self._submit(self._stop.set, last=True)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- inside

    def _submit(self, job: Callable[[], object], *, last: bool = False) -> bool:
        """Have the loop do this, unless it was told to stop; whether it will."""
        if self.over:
            return False
        with self._lock:
            if self._stopping:
                return False
            self._stopping = last
            self._loop.call_soon_threadsafe(job)
            return True

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        await self._stop.wait()
        await self.line.aclose()
