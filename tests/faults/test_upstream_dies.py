"""The daemon dies, at any byte of what it gets or sends: the client sees the same cut.

Each cut is a connection of its own, many at once in front of one tap.
"""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign import Campaign
from tests.process.tap import connect, eventually, sidecar

from .messages import (
    ANSWERS,
    REQUESTS,
    SWITCHING,
    Cut,
    answer_told,
    batches,
    cuts,
    everyone,
    request_told,
    takes,
)
from .running import descriptors, exactly, finish, recorded, settled
from .upstreams import Connection, upstream

SLOW = 60
DIED = "the daemon closed the connection"
RESET = "the daemon's connection was cut"
MORE = b"\x81\x01x"
"""What the daemon never reads; also a websocket's frame."""


def end_of(client: socket.socket) -> bytes:
    """What still comes, up to the end; a reset is one."""
    try:
        return exactly(client, 1 << 20)
    except ConnectionResetError:
        return b""


def met(path: str, batch: list[Cut]) -> list[bytes]:
    """Ask for answers that are cut so, all at once; what comes."""
    clients = [connect(path) for _ in batch]
    for client, cut in zip(clients, batch, strict=True):
        client.sendall(cut.get)
    heard = []
    for client in clients:
        with client:
            heard.append(exactly(client, 1 << 20))  # to a clean end of the connection
    return heard


async def stops(connection: Connection) -> None:
    """Send so much of an answer as is asked for, and be gone."""
    await connection.send(Cut.asked(await connection.head()).data)


def test_in_what_it_sends(tmp_path: Path, campaign: Campaign) -> None:
    """The client gets what was sent, then the end; it is recorded up to the byte, as cut."""
    todo = cuts(ANSWERS, campaign.count(8, 0))
    together = batches(todo)
    with upstream(tmp_path / "daemon", stops) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("dies, sending", together, len(together)):
                assert met(tap.path, batch) == [cut.data for cut in batch]
            eventually(lambda: descriptors(tap.process.pid) == before)
            assert len(daemon.asked) == len(todo)
            finish(tap, SLOW)
    told = dict(map(answer_told, recorded(tmp_path / "w.yaml").interactions))
    # An answer that lasts until the connection ends is never known to be short.
    assert told == dict(cut.as_answer(DIED, clean=["until-close"]) for cut in todo)
    campaign.figure("daemon dies, sending", f"at {len(todo)} bytes: the same cut, recorded so")


async def is_killed(connection: Connection) -> None:
    """Be gone with something unread, which resets the connection (unix(7))."""
    await connection.send(Cut.asked(await connection.head()).data)
    await connection.readable()


KILLED = [("length", "chunks", "exec"), ("until-close",)]


@pytest.mark.parametrize("kinds", KILLED, ids="-".join)
def test_with_something_unread(tmp_path: Path, campaign: Campaign, kinds: tuple[str, ...]) -> None:
    """Then its connection is cut rather than ended: recorded so whatever the framing."""
    todo = [cut for cut in cuts(ANSWERS, campaign.count(8, 0)) if cut.kind in kinds]
    together = batches(todo)
    with upstream(tmp_path / "daemon", is_killed) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("is killed, sending", together, len(together)):
                clients = [connect(tap.path) for _ in batch]
                for client, cut in zip(clients, batch, strict=True):
                    longer = b"\r\nContent-Length: %d\r\n\r\n" % len(MORE)
                    client.sendall(cut.get.replace(b"\r\n\r\n", longer))
                for client, cut in zip(clients, batch, strict=True):
                    with client:
                        assert exactly(client, cut.size) == cut.data
                        client.sendall(MORE)
                        assert end_of(client) == b""
            eventually(lambda: descriptors(tap.process.pid) == before)
            finish(tap, SLOW)
    told = dict(map(answer_told, recorded(tmp_path / "w.yaml").interactions))
    assert told == dict(cut.as_answer(RESET) for cut in todo)
    campaign.figure(
        f"daemon is killed, sending {', '.join(kinds)}", f"at {len(todo)} bytes: a cut, recorded so"
    )


def test_in_what_it_gets(tmp_path: Path, campaign: Campaign) -> None:
    """All clients hear the end at once; their requests are recorded as broken off by the daemon."""
    todo = cuts(REQUESTS, campaign.count(8, 0))
    together = batches(todo)
    with upstream(tmp_path / "daemon", takes) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            before = settled(tap.process.pid)
            for batch in campaign.progress("dies, reading", together, len(together)):
                clients = everyone(daemon, tap, batch, lambda cut: cut.data)
                daemon.cut()
                for client, cut in zip(clients, batch, strict=True):
                    with client:
                        upgraded = cut.kind == "exec" and cut.size >= len(cut.message.head)
                        assert exactly(client, 1 << 20) == (SWITCHING if upgraded else b"")
            eventually(lambda: descriptors(tap.process.pid) == before)
            finish(tap, SLOW)
    told = Counter(map(request_told, recorded(tmp_path / "w.yaml").interactions))
    assert told == Counter(cut.as_request(DIED) for cut in todo)
    campaign.figure("daemon dies, reading", f"at {len(todo)} bytes: the same cut, recorded so")
