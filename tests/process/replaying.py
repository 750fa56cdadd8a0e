"""A recording that is played in this process, on a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lxdtap.cassette.model import Cassette
from lxdtap.replay.player import Player
from lxdtap.replay.server import Replay
from lxdtap.tap.listener import Listener, Serve, private


class Service(Protocol):
    """What serves the clients of a socket."""

    @property
    def serve(self) -> Serve: ...

    def close(self) -> None: ...


class Serving:
    """A service on a socket of its own, on a loop in a thread of its own."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], Service]) -> None:
        self.listener: Listener = private(dict(os.environ))
        self.loop = asyncio.new_event_loop()
        self.service = self.loop.run_until_complete(self._made(make))
        self.complaints: list[str] = []
        self._thread = threading.Thread(target=self.loop.run_forever)

    async def _made(self, make: Callable[[asyncio.AbstractEventLoop], Service]) -> Service:
        return make(asyncio.get_running_loop())

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        self.listener.start(self.loop, self.service.serve, self.complaints.append)
        self._thread.start()
        try:
            yield self.listener.path
        finally:
            self.loop.call_soon_threadsafe(self._end)
            self._thread.join()
            self.loop.close()

    def _end(self) -> None:
        self.listener.close()
        self.service.close()
        self.loop.call_later(0.05, self.loop.stop)


@dataclass(slots=True)
class Replayed:
    """A recording that is played."""

    replay: Replay
    told: list[str]


@contextlib.contextmanager
def replayed(cassette: Cassette, *, paced: bool = False) -> Iterator[tuple[str, Replayed]]:
    """Play a recording to the clients of a new socket."""
    told: list[str] = []
    service = Serving(lambda loop: Replay(Player(cassette, paced=paced), told.append, loop))
    replay = service.service
    assert isinstance(replay, Replay)
    with service.running() as path:
        yield path, Replayed(replay, told)
