"""A private socket that is served on a loop in a thread of its own.

So whoever is served may do what it likes with its own thread and loop: block them, or end them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from lxdtap.tap.listener import Listener, Serve, private

T = TypeVar("T")

_PATIENCE = 30.0
"""Seconds after which the thread is taken to be stuck: far beyond what it ever takes."""


class Served(Protocol):
    """What serves the clients of a socket."""

    @property
    def serve(self) -> Serve:
        """Takes a client, whose socket is closed in the end."""

    async def settle(self) -> None:
        """Take in what has passed, which clients may know of before we do."""

    async def finish(self) -> None:
        """Let what is under way come to its end, and close everything; no more clients come."""


Make = Callable[[asyncio.AbstractEventLoop], Served]


class Service:
    """What is served from now on, until :meth:`close`.

    Args:
        make: makes what serves; called on the loop.
        complain: is told of trouble in accepting.

    Attributes:
        path: of the socket.

    Raises:
        ListenError: there is no place for the socket.
    """

    def __init__(self, make: Make, complain: Callable[[str], None]) -> None:
        self._listener: Listener = private(dict(os.environ))
        self.path = self._listener.path
        # Not the policy's loop, which is the user's to choose.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name="lxdtap", daemon=True)
        self._thread.start()
        try:
            self._served: Served = self._wait(self._begin(make, complain))
        except BaseException:
            self._listener.close()
            self._stop()
            raise

    def settle(self) -> None:
        """Wait a moment for what is about to be known."""
        self._wait(self._served.settle())

    def close(self) -> None:
        """Stop serving."""
        try:
            self._wait(self._end())
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()

    # -- in the thread

    def _run(self) -> None:
        self._loop.run_forever()

    async def _begin(self, make: Make, complain: Callable[[str], None]) -> Served:
        served = make(self._loop)
        self._listener.start(self._loop, served.serve, complain)
        return served

    async def _end(self) -> None:
        self._listener.close()
        await self._served.finish()
        for _ in range(3):  # transports are closed in later turns
            await asyncio.sleep(0)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)
