"""Thousands of connections that do nothing: all of them answer afterwards, others hardly notice."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from tests.campaign import Campaign
from tests.process.tap import Sidecar, answer, ask, eventually, sidecar

from .messages import REQUESTS, SWITCHING, frames
from .running import Spread, descriptors, exactly, family, finish, resident
from .upstreams import Connection, upstream

SLOW = 120
GET = b"GET /quick HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"
STALLED = GET.replace(b"quick", b"stalled")
EXEC = REQUESTS["exec"].head
QUICK = answer(b"{}")
ASKED = b"".join(piece.data for piece in frames([(1, b"are you there?")], b"mask"))
TOLD = b"".join(piece.data for piece in frames([(1, b"yes")]))
NOISE = 0.05
"""Seconds that a loaded machine takes now and then."""


def others(tap: Sidecar, times: int) -> Spread:
    """How long others wait; of three rounds the best, for the machine has other things to do."""
    rounds = []
    for _ in range(3):
        took = []
        for _ in range(times):
            begun = time.monotonic()
            assert ask(tap.path, GET) == QUICK
            took.append(time.monotonic() - begun)
        rounds.append(Spread(took))
    return min(rounds, key=lambda spread: spread.quantile(0.99))


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
    websockets, stalled = room(campaign.count(200, 9_000)), campaign.count(100, 1_000)
    times = campaign.count(50, 1_000)
    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            held = descriptors(tap.process.pid)
            alone, before = others(tap, times), memory(tap)
            with clients(tap, websockets) as idle:
                all_say(idle, EXEC, SWITCHING)
                time.sleep(1.5)  # until the log has told of them as open
                after, beside = memory(tap), others(tap, times)
                all_say(idle, ASKED, TOLD)
            with clients(tap, stalled) as hanging:
                all_say(hanging, STALLED, b"")
                eventually(lambda: daemon.open >= stalled, SLOW)
                among = others(tap, times)
                daemon.call(daemon.go.set)
                all_say(hanging, b"", QUICK)
            eventually(lambda: descriptors(tap.process.pid) == held, SLOW)
            finish(tap, SLOW)
    each = [(now - then) / websockets for then, now in zip(before, after, strict=True)]
    kib = ", ".join(f"{size:.1f}" for size in each)
    campaign.figure("others, alone", str(alone))
    campaign.figure(
        f"{websockets} idle websockets", f"KiB each, by process: {kib}; others {beside}"
    )
    campaign.figure(f"{stalled} stalled requests", f"all answered; others {among}")
    for spread in (beside, among):
        assert spread.quantile(0.99) <= 2 * alone.quantile(0.99) + NOISE
