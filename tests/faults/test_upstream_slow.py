"""A daemon that takes its time: nothing of lxdtap's ends the wait."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.campaign import Campaign
from tests.process.tap import answer, connect, sidecar

from .messages import ANSWERS, REQUESTS, Cut
from .running import exactly
from .upstreams import Connection, upstream

LONG = 600
"""Seconds in a campaign."""


QUICK = b"GET /quick HTTP/1.1\r\nHost: lxd\r\nConnection: close\r\n\r\n"


def test_it_is_waited_for(tmp_path: Path, campaign: Campaign) -> None:
    """Before and within its answer, within a request, on a websocket, between two, all at once."""
    seconds = campaign.count(2, LONG)
    late, put = answer(b"late"), REQUESTS["PUT"].data
    todo = [Cut(kind, each, len(each.head) + 20) for kind, each in ANSWERS.items()]
    todo.append(Cut("length", ANSWERS["length"], 0))

    async def script(connection: Connection) -> None:
        head = await connection.head()
        if head == QUICK:
            await connection.send(late)
        elif head.startswith(b"PUT"):
            await connection.skip(512)
            await connection.send(late)
        else:
            cut = Cut.asked(head)
            await connection.send(cut.data)
            await asyncio.sleep(seconds)
            await connection.send(cut.message.data[cut.size :])

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            with connect(tap.path) as idle, connect(tap.path) as half:
                half.sendall(put[:-1])
                clients = [connect(tap.path) for _ in todo]
                for client, cut in zip(clients, todo, strict=True):
                    client.settimeout(seconds + 60)
                    client.sendall(cut.get)
                for client, cut in zip(clients, todo, strict=True):
                    with client:
                        expected = cut.message.data
                        assert exactly(client, len(expected) + 1) == expected
                half.sendall(put[-1:])
                idle.sendall(QUICK)
                assert exactly(half, len(late)) == exactly(idle, len(late)) == late
            assert tap.stop() == 0
            assert {entry["broken"] for entry in tap.transactions()} == {None}
    campaign.figure("daemon is slow", f"{seconds} s, in {len(todo) + 2} ways: no timeout")
