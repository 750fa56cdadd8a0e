"""No file descriptors are left: those that are served go on, the others wait, nobody spins."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from tests.campaign import Campaign
from tests.process.tap import GET, answer, connect, eventually, rest, sidecar

from .running import descriptors, finish, processor, settled
from .upstreams import Connection, upstream

SOON = 1.0
"""Seconds in which clients are to be served once there are descriptors again."""


LEFT = 21
"""Descriptors; one more than ten clients need."""


def test_no_descriptors(tmp_path: Path, campaign: Campaign) -> None:
    """It rests, says so once; who waited is served within a second of there being some."""
    seconds = campaign.count(1, 60)
    served = LEFT // 2

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.upstream.go.wait()
        await connection.send(answer(b"{}"))

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = settled(tap.process.pid)
            most = tap.descriptors + LEFT
            resource.prlimit(tap.process.pid, resource.RLIMIT_NOFILE, (most, most))
            clients = [connect(tap.path) for _ in range(2 * LEFT)]
            for client in clients:
                client.sendall(GET)
            eventually(lambda: len(daemon.asked) == served)
            used = processor(tap.process.pid)
            time.sleep(seconds)
            used = processor(tap.process.pid) - used
            assert len(daemon.asked) == served
            daemon.call(daemon.go.set)
            begun, took = time.monotonic(), []
            for client in clients:
                with client:
                    assert rest(client) == answer(b"{}")
                took.append(time.monotonic() - begun)
            eventually(lambda: descriptors(tap.process.pid) == before)
            [said] = finish(tap)
            assert [entry["broken"] for entry in tap.transactions()] == [None] * len(clients)
    assert said.startswith("lxdtap: cannot accept a client: Too many open files; raise the limit")
    assert used < 0.1 * seconds
    # As many at a time as have room; each such round begins within a second.
    assert took[served] <= SOON
    assert took[2 * served - 1] <= 2 * SOON
    campaign.figure(
        "no descriptors left",
        f"{100 * used / seconds:.1f} % of a processor for {seconds} s, one message; the next are"
        f" served after {took[served]:.2f} s, all {len(clients)} after {max(took):.2f} s",
    )
