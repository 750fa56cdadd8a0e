"""The client goes, at any byte of what it sends or gets: the daemon hears so, nothing is left.

Each cut is a connection of its own, many at once in front of one tap.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tests.campaign import Campaign
from tests.process.tap import answer, connect, eventually, sidecar

from .messages import (
    ANSWERS,
    REQUESTS,
    SWITCHING,
    Cut,
    answer_told,
    batches,
    begins,
    cuts,
    everyone,
    request_told,
    takes,
)
from .running import Spread, descriptors, exactly, finish, recorded, settled
from .upstreams import Account, Connection, GoneError, Upstream, upstream

SOON = 1.0
"""Seconds in which the daemon is to know that a client is gone."""
LOADED = 1.0
"""Seconds that a machine with much else to do may take now and then, but in a campaign."""
LATE = 0.8
"""Seconds after which an answer comes for those that are not; longer than a tap hears a daemon
whose client is gone."""
SLOW = 60
LEFT = "the client closed the connection"


def leave(daemon: Upstream, clients: list[socket.socket]) -> list[float]:
    """Close clients; how long it took until the daemon knew of each."""
    accounts = daemon.asked[-len(clients) :]
    assert not any(account.ended or account.gone for account in accounts)
    begun = time.monotonic()
    for client in clients:
        client.close()
    eventually(lambda: all(account.over for account in accounts))
    return [(account.gone or 0) - begun for account in accounts]


# -- in what it sends


def test_in_what_it_sends(tmp_path: Path, campaign: Campaign) -> None:
    """The daemon gets what was sent, then the end; it is recorded up to the byte."""
    todo = cuts(REQUESTS, campaign.count(8, 0))
    together = batches(todo)
    took = []
    with upstream(tmp_path / "daemon", takes) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("client gone, sending", together, len(together)):
                took += leave(daemon, everyone(daemon, tap, batch, lambda cut: cut.data))
            eventually(lambda: descriptors(tap.process.pid) == before)
            assert not [line for line in finish(tap, SLOW) if "waiting" in line]
    received = Counter(bytes(account.received) for account in daemon.asked)
    assert received == Counter(cut.data for cut in todo)
    told = Counter(map(request_told, recorded(tmp_path / "w.yaml").interactions))
    assert told == Counter(cut.as_request(LEFT) for cut in todo)
    campaign.figure("client gone, sending", f"at {len(todo)} bytes; known after {Spread(took)}")
    assert max(took) <= SOON + campaign.spare(LOADED)


# -- in what it gets


async def stops(connection: Connection) -> None:
    """Send so much of an answer as is asked for, no more, and hear the client to its very end."""
    await connection.send(Cut.asked(await connection.head()).data)
    await connection.hangup()


def test_in_what_it_gets(tmp_path: Path, campaign: Campaign) -> None:
    """What came until then is recorded up to the byte; the daemon learns that nobody reads on."""
    todo = cuts(ANSWERS, campaign.count(8, 0))
    together = batches(todo)
    took = []
    with upstream(tmp_path / "daemon", stops) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("client gone, reading", together, len(together)):
                clients = everyone(daemon, tap, batch, lambda cut: cut.get)
                for client, cut in zip(clients, batch, strict=True):
                    assert exactly(client, cut.size) == cut.data
                took += leave(daemon, clients)
            eventually(lambda: descriptors(tap.process.pid) == before)
            assert not [line for line in finish(tap, SLOW) if "waiting" in line]
    told = dict(map(answer_told, recorded(tmp_path / "w.yaml").interactions))
    assert told == dict(cut.as_answer(LEFT) for cut in todo)
    campaign.figure("client gone, reading", f"at {len(todo)} bytes; known after {Spread(took)}")
    assert max(took) <= SOON + campaign.spare(LOADED)


async def floods(connection: Connection) -> None:
    """Answer without end, until the client no longer reads."""
    await connection.head()
    with contextlib.suppress(GoneError):
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await connection.send(bytes(1 << 16))
    connection.account.gone = time.monotonic()


def test_with_more_on_its_way(tmp_path: Path, campaign: Campaign) -> None:
    """A daemon that waits for room to write is told as well: its next write fails."""
    count = campaign.count(5, 50)
    with upstream(tmp_path / "daemon", floods) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = settled(tap.process.pid)
            clients = [connect(tap.path) for _ in range(count)]
            for size, client in enumerate(clients):
                client.sendall(b"GET / HTTP/1.1\r\nHost: lxd\r\n\r\n")
                exactly(client, 1 + 7 * size)
            eventually(lambda: len(daemon.asked) == count)
            took = leave(daemon, clients)
            eventually(lambda: descriptors(tap.process.pid) == before)
            finish(tap)
            broken = [entry["broken"] for entry in tap.transactions()]
    assert broken == [f"{LEFT} in the answer's body"] * count
    campaign.figure("client gone, not reading", f"{count} at once; known after {Spread(took)}")
    assert max(took) <= SOON + campaign.spare(LOADED)


# -- not gone


async def answers_late(connection: Connection) -> None:
    """Hear a client that has ended its sending; answer when it could long have been gone."""
    await begins(connection)
    await connection.to_end()
    await asyncio.sleep(LATE)
    await connection.send(answer(connection.account.sha256.encode()))
    await connection.hangup()


def late_answer(account: Account) -> bytes:
    """What comes then, after what came before."""
    upgraded = b"Upgrade" in account.received and b"\r\n\r\n" in account.received
    return (SWITCHING if upgraded else b"") + answer(account.sha256.encode())


def test_a_half_close_is_not_gone(tmp_path: Path, campaign: Campaign) -> None:
    """After any byte: the daemon hears the end, has its time, and its answer arrives."""
    todo = cuts(REQUESTS, campaign.count(8, 0))
    together = batches(todo)
    with upstream(tmp_path / "daemon", answers_late) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("half-closed", together, len(together)):
                clients = everyone(daemon, tap, batch, lambda cut: cut.data)
                accounts = daemon.asked[-len(batch) :]
                for client in clients:
                    client.shutdown(socket.SHUT_WR)
                for client, account in zip(clients, accounts, strict=True):
                    eventually(partial(getattr, account, "ended"))
                    expected = late_answer(account)
                    assert exactly(client, len(expected)) == expected
                    assert not account.gone
                for client in clients:
                    client.close()
                for account in accounts:
                    eventually(partial(getattr, account, "gone"))
            eventually(lambda: descriptors(tap.process.pid) == before)
    campaign.figure("half-close", f"after {len(todo)} bytes; all answered {LATE} s later")
