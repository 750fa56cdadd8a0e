"""Thousands of connections that do nothing: all of them answer afterwards, others hardly notice."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from tests.campaign import Campaign
from tests.process.callers import resident
from tests.process.tap import Sidecar, answer, ask, eventually, sidecar

from .messages import REQUESTS, SWITCHING, frames
from .running import Spread, descriptors, exactly, family, finish, processor, settled
from .upstreams import Connection, Upstream, upstream

SLOW = 120
MANY = 9_000
GET = b"GET /quick HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"
STALLED = GET.replace(b"quick", b"stalled")
EXEC = REQUESTS["exec"].head
QUICK = answer(b"{}")
ASKED = b"".join(piece.data for piece in frames([(1, b"are you there?")], b"mask"))
TOLD = b"".join(piece.data for piece in frames([(1, b"yes")]))
WINDOWS = 3
"""In each round."""
TWICE = 2
"""How much longer others may wait: one in a hundred of them, the p99."""
NOISE = 0.05
"""Seconds that a loaded machine takes now and then: outside a campaign, where a few are asked."""
GRAIN = 0.0001
"""Seconds in which one quick answer differs from the next one, where a p99 is less than one."""


@dataclass
class Waits:
    """How long others wait for a quick answer, by the tap and directly, a window after another.

    Rounds with and without load alternate, and so do the two ways within each: what else the
    machine has to do is in all of them. The median of the windows' p99 is what counts.
    """

    times: int
    tapped: list[Spread] = field(default_factory=list)
    direct: list[Spread] = field(default_factory=list)
    used: float = 0.0
    """Seconds of processor time of the tap's: these do not depend on what else there is to do."""

    def windows(self, client: Executor, tap: Sidecar, daemon: Upstream) -> None:
        """Ask so often both ways, by turns, in a process that has nothing else to do."""
        used = processor(tap.process.pid)
        for _ in range(WINDOWS):
            tapped, direct = client.submit(quick, self.times, tap.path, daemon.path).result()
            self.tapped.append(Spread(tapped))
            self.direct.append(Spread(direct))
        self.used += processor(tap.process.pid) - used

    @property
    def p99(self) -> float:
        """By the tap."""
        return statistics.median(window.quantile(0.99) for window in self.tapped)

    @property
    def p99_direct(self) -> float:
        """Without it."""
        return statistics.median(window.quantile(0.99) for window in self.direct)

    def __str__(self) -> str:
        p50 = statistics.median(window.quantile(0.5) for window in self.tapped)
        each = self.used / (len(self.tapped) * self.times)
        return (
            f"p50 {1000 * p50:.2f}, p99 {1000 * self.p99:.2f}, of processor {1000 * each:.2f} ms;"
            f" directly p99 {1000 * self.p99_direct:.2f} ms"
        )


def quick(times: int, *paths: str) -> list[list[float]]:
    """Seconds until somebody on a connection of their own is answered, so often by each path."""
    took: list[list[float]] = [[] for _ in paths]
    for _ in range(times):
        for path, each in zip(paths, took, strict=True):
            begun = time.monotonic()
            assert ask(path, GET) == QUICK
            each.append(time.monotonic() - begun)
    return took


@contextlib.contextmanager
def somebody() -> Iterator[Executor]:
    """A process for others; it has begun."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(quick, 0).result()
        yield pool


def memory(tap: Sidecar) -> list[int]:
    """Of each process, in KiB."""
    return [resident(pid) for pid in family(tap.process.pid)]


@contextlib.contextmanager
def clients(tap: Sidecar, count: int) -> Iterator[list[socket.socket]]:
    """So many of them, connected; each waits until there is room for it."""
    with contextlib.ExitStack() as open_ones:
        socks = []
        for _ in range(count):
            socks.append(open_ones.enter_context(socket.socket(socket.AF_UNIX)))
            socks[-1].connect(tap.path)
            socks[-1].settimeout(SLOW)
        yield socks


def room(wanted: int) -> int:
    """How many connections there can be: each has two ends here, and two in the tap."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(wanted, (most - 500) // 2)


async def script(connection: Connection) -> None:
    """Upgrade and answer one frame; or answer at once, or when the account says so."""
    head = await connection.head()
    if b"Upgrade" in head:
        await connection.send(SWITCHING)
        await connection.exactly(len(ASKED))
        await connection.send(TOLD)
        return
    if b"stalled" in head:
        await connection.upstream.go.wait()
    await connection.send(QUICK)


def all_say(socks: list[socket.socket], asked: bytes, told: bytes) -> None:
    """All are asked, if they are, and then all have answered."""
    for sock in socks if asked else []:
        sock.sendall(asked)
    for sock in socks:
        assert exactly(sock, len(told)) == told


def test_idle_and_stalled(tmp_path: Path, campaign: Campaign) -> None:
    """Idle websockets and requests that hang cost others nothing, and little memory."""
    websockets, stalled = room(campaign.count(200, MANY)), campaign.count(100, 1_000)
    campaign.made("websockets", websockets, MANY)
    rounds, times = campaign.count(1, 5), campaign.count(50, 400)
    alone, beside, among = Waits(times), Waits(times), Waits(times)
    grown: list[float] = []
    with somebody() as client, upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            held = settled(tap.process.pid)
            for _ in campaign.progress("many connections", range(rounds), rounds):
                daemon.call(daemon.go.clear)
                alone.windows(client, tap, daemon)
                before = memory(tap)
                with clients(tap, websockets) as idle:
                    all_say(idle, EXEC, SWITCHING)
                    time.sleep(1.5)  # until the log has told of them as open
                    grown = grown or each_takes(before, memory(tap), websockets)
                    beside.windows(client, tap, daemon)
                    all_say(idle, ASKED, TOLD)
                eventually(lambda: descriptors(tap.process.pid) == held, SLOW)
                with clients(tap, stalled) as hanging:
                    all_say(hanging, STALLED, b"")
                    eventually(lambda: daemon.open >= stalled, SLOW)
                    among.windows(client, tap, daemon)
                    daemon.call(daemon.go.set)
                    all_say(hanging, b"", QUICK)
                eventually(lambda: descriptors(tap.process.pid) == held, SLOW)
            finish(tap, SLOW)
    kib = ", ".join(f"{size:.1f}" for size in grown)
    campaign.figure("others, alone", str(alone))
    campaign.figure(f"{websockets} idle websockets", f"KiB each, by process: {kib}")
    campaign.figure("others beside these", str(beside))
    campaign.figure(f"others beside {stalled} stalled requests", str(among))
    for waits in (beside, among):
        assert waits.p99 <= TWICE * alone.p99 + max(GRAIN, campaign.spare(NOISE))


def each_takes(before: list[int], after: list[int], count: int) -> list[float]:
    """KiB of memory that each of so many connections takes, by process."""
    return [(now - then) / count for then, now in zip(before, after, strict=True)]
