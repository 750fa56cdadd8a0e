"""Sockets call back when they are ready, and leave the loop's other work its turn."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from typing import cast

import pytest

from lxdtap.clock import moment
from lxdtap.tap.readiness import Loop, Readiness
from lxdtap.transaction import Direction, Moment

Run = Callable[[Coroutine[None, None, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, Loop], ids=["any loop", "its own loop"])
def run(request: pytest.FixtureRequest) -> Run:
    """How a scene is played: by which event loop."""

    def play(scene: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scene)

    return play


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Readiness, socket.socket, socket.socket]]:
    """A readiness, and two sockets that are connected."""
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(Readiness(asyncio.get_running_loop())) as readiness:
        yield readiness, ours, theirs


async def turns(seconds: float = 0.05) -> None:
    """Let the loop go round."""
    await asyncio.sleep(seconds)


def test_what_it_is_asked_for_and_no_more(run: Run) -> None:
    """Something to read and room to write, each until it is taken back."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            seen: list[str] = []
            readiness.readable(ours, lambda: seen.append(ours.recv(9).decode()))
            await turns()
            assert seen == []
            theirs.send(b"a")
            await turns()
            assert seen == ["a"]

            def written() -> None:
                seen.append("room")
                readiness.writable(ours, None)

            readiness.writable(ours, written)
            theirs.send(b"b")
            await turns()
            assert sorted(seen) == ["a", "b", "room"]
            readiness.readable(ours, None)
            theirs.send(b"c")
            await turns()
            assert sorted(seen) == ["a", "b", "room"]

    run(scene())


def test_a_callback_that_was_taken_back_by_another(run: Run) -> None:
    """Of two sockets that are ready together, whoever is first may silence the other."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            called: list[socket.socket] = []

            def silence(sock: socket.socket) -> None:
                called.append(sock)
                for each in (ours, theirs):
                    readiness.readable(each, None)

            for sock, other in ((ours, theirs), (theirs, ours)):
                readiness.readable(sock, lambda sock=sock: silence(sock))  # type: ignore[misc]
                other.send(b"x")
            await turns()
            assert len(called) == 1

    run(scene())


def test_a_peer_that_is_gone(run: Run) -> None:
    """A half-close is not that; a close is, once; one that has happened is told of at once."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            told: list[str] = []
            readiness.gone(ours, lambda: told.append("gone"))
            theirs.shutdown(socket.SHUT_WR)
            await turns()
            assert told == []
            theirs.close()
            await turns()
            assert told == ["gone"]
            readiness.gone(ours, lambda: told.append("at once"))
            assert told == ["gone", "at once"]

    run(scene())


class Counted:
    """The loop, as far as a readiness knows it; counts how often that is woken."""

    def __init__(self) -> None:
        self.woken = 0
        self._loop = asyncio.get_running_loop()
        self.remove_reader = self._loop.remove_reader

    def add_reader(self, number: int, callback: Callable[[int], bool], seconds: int) -> None:
        def woken() -> None:
            self.woken += 1
            callback(seconds)

        self._loop.add_reader(number, woken)


def test_nobody_waits_for_a_hangup() -> None:
    """Then it is not told of: epoll would do so again and again."""

    async def scene() -> None:
        ours, theirs = socket.socketpair()
        loop = Counted()
        with ours, theirs, closing(Readiness(cast(asyncio.AbstractEventLoop, loop))) as readiness:
            readiness.readable(ours, lambda: readiness.readable(ours, None))
            theirs.close()
            await turns()
            assert loop.woken == 1

    asyncio.run(scene())


def test_a_callback_that_fails(run: Run) -> None:
    """The loop is told, and the others have their turn all the same."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            told: list[object] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: told.append(context["exception"])
            )
            came: list[bytes] = []
            failure = RuntimeError("no")

            def fail() -> None:
                raise failure

            readiness.readable(theirs, fail)
            readiness.readable(ours, lambda: came.append(ours.recv(9)))
            ours.send(b"x")
            theirs.send(b"y")
            await turns(0.01)
            assert came == [b"y"]
            assert failure in told

    run(scene())


def test_what_comes_afterwards(run: Run) -> None:
    """It waits for all that are ready together, in order, unless somebody cannot wait for it."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            told: list[str] = []
            failure = RuntimeError("no")

            def tell(direction: Direction, data: bytes, _: Moment) -> None:
                told.append(f"{direction.value} {data.decode()}")

            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: told.append(repr(context["exception"]))
            )

            def fail(*_: object) -> None:
                raise failure

            def heard(sock: socket.socket) -> None:
                told.append(sock.recv(9).decode())
                readiness.afterwards((fail, Direction.SENT, b""))
                readiness.afterwards((tell, Direction.SENT, b"afterwards"))
                if len(told) > 5:
                    readiness.settle()

            for sock, other in ((ours, theirs), (theirs, ours)):
                readiness.readable(sock, lambda sock=sock: heard(sock))  # type: ignore[misc]
                other.send(b"now")
            await turns(0.01)
            later = [repr(failure), "sent afterwards"]
            assert told == ["now", "now", *later, *later]
            for each in (ours, theirs):
                each.send(b"again")
            await turns(0.01)
            assert told[6:] == ["again", *later, "again", *later]

    run(scene())


def test_when_they_came(run: Run) -> None:
    """One time for all that were ready together: when all of them have been called back."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            times: list[Moment] = []

            def heard(sock: socket.socket) -> None:
                sock.recv(9)
                readiness.afterwards((lambda *told: times.append(told[2]), Direction.SENT, b""))
                time.sleep(0.01)

            for sock, other in ((ours, theirs), (theirs, ours)):
                readiness.readable(sock, lambda sock=sock: heard(sock))  # type: ignore[misc]
                other.send(b"x")
            sent = moment()
            await turns(0.05)
            assert times[0] == times[1]
            assert sent.monotonic + 20_000_000 <= times[0].monotonic <= moment().monotonic

    run(scene())


def test_other_work_has_its_turn(run: Run) -> None:
    """Even if a socket is ready all the time."""

    async def scene() -> None:
        async with pair() as (readiness, ours, theirs):
            calls = 0

            def read() -> None:
                nonlocal calls
                calls += 1

            theirs.send(b"x")
            readiness.readable(ours, read)
            begun = time.monotonic()
            for _ in range(10):
                await asyncio.sleep(0)
            assert calls > 10
            assert time.monotonic() - begun < 5

    run(scene())


def test_two_on_one_loop(run: Run) -> None:
    """One leads the loop; both call back, and the loop's own work is done besides."""

    async def scene() -> None:
        async with pair() as (first, ours, theirs), pair() as (second, hers, others):
            seen: list[bytes] = []
            first.readable(ours, lambda: seen.append(ours.recv(9)))
            second.readable(hers, lambda: seen.append(hers.recv(9)))
            reading, writing = socket.socketpair()
            loop = asyncio.get_running_loop()
            with reading, writing:
                loop.add_reader(reading, lambda: seen.append(reading.recv(9)))
                for sock, data in ((theirs, b"1"), (others, b"2"), (writing, b"3")):
                    sock.send(data)
                loop.call_later(0.01, seen.append, b"4")
                await turns()
                loop.remove_reader(reading)
            assert sorted(seen) == [b"1", b"2", b"3", b"4"]

    run(scene())


def test_a_loop_without_one(run: Run) -> None:
    """Before it begins and after it is closed, a loop works as any other."""

    async def scene() -> None:
        await turns(0.01)
        async with pair() as (readiness, ours, theirs):
            readiness.readable(ours, lambda: None)
            theirs.send(b"x")
            readiness.forget(ours)
        begun = time.monotonic()
        await turns(0.01)
        assert await asyncio.to_thread(lambda: 7) == 7
        assert time.monotonic() - begun < 5

    run(scene())
