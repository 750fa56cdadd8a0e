"""A tap is told to end: what is under way finishes, up to a deadline; nothing recorded is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lxdtap.stage import DRAIN
from tests.campaign import Campaign
from tests.process.tap import PATIENCE, answer, connect, eventually, sidecar

from .messages import REQUESTS, SWITCHING, frames
from .running import exactly, finish, recorded
from .upstreams import Connection, serving, upstream, waits

GET = REQUESTS["GET"].data
PUT = REQUESTS["PUT"].data
EXEC = REQUESTS["exec"].head
FRAME = frames([(1, b"late")])
LATE = b"".join(piece.data for piece in FRAME)
DONE = answer(b"{}", close=False)
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def test_what_is_under_way_finishes(tmp_path: Path, campaign: Campaign) -> None:
    """What was asked, half asked, or is a tunnel goes on; what is idle ends."""
    for number in SIGNALS[: campaign.count(1, 2)]:
        place = tmp_path / number.name
        place.mkdir()
        took = finishes(place, number)
        campaign.figure(number.name, f"all of four kinds finished; the end {took:.2f} s later")


def finishes(tmp_path: Path, number: signal.Signals) -> float:
    """See that it does; how long after that the tap takes to end."""
    quickly = serving(lambda _: DONE)

    async def script(connection: Connection) -> None:
        head = await connection.head()
        if b" /idle " in head:
            await connection.send(DONE)
            await quickly(connection)
        if b"Upgrade" in head:
            await connection.send(SWITCHING)
        elif head.startswith(b"PUT"):
            await connection.skip(len(REQUESTS["PUT"].data) - len(head))
        await connection.upstream.go.wait()
        await connection.send(LATE if b"Upgrade" in head else DONE)

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            asked, half, tunnel, idle = (connect(tap.path) for _ in range(4))
            idle.sendall(GET.replace(b" / ", b" /idle "))
            assert exactly(idle, len(DONE)) == DONE
            asked.sendall(GET)
            half.sendall(PUT[:-1])
            tunnel.sendall(EXEC)
            assert exactly(tunnel, len(SWITCHING)) == SWITCHING
            eventually(lambda: len(daemon.asked) == 4)
            tap.process.send_signal(number)
            eventually(lambda: not os.path.exists(tap.path))
            assert exactly(idle, 1) == b""
            half.sendall(PUT[-1:])
            daemon.call(daemon.go.set)
            assert exactly(asked, len(DONE) + 1) == DONE
            assert exactly(half, len(DONE) + 1) == DONE
            assert exactly(tunnel, len(LATE) + 1) == LATE
            begun = time.monotonic()
            tap.process.communicate(timeout=PATIENCE)
            took = time.monotonic() - begun
            assert tap.process.returncode == 0
            for client in (asked, half, tunnel, idle):
                client.close()
    interactions = recorded(tmp_path / "w.yaml").interactions
    assert len(interactions) == 4
    assert {each.transaction.broken for each in interactions} == {""}
    return took


@pytest.mark.parametrize("late", [0.2, 1.5])
def test_what_has_finished_is_not_waited_for(tmp_path: Path, late: float) -> None:
    """Neither side hangs up: a connection ends when its answer has, and not at the deadline."""

    async def script(connection: Connection) -> None:
        while await connection.head():
            await connection.upstream.go.wait()
            await connection.send(DONE)

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            with connect(tap.path) as client:
                client.sendall(GET)
                eventually(lambda: daemon.asked)
                tap.process.send_signal(signal.SIGTERM)
                eventually(lambda: not os.path.exists(tap.path))
                time.sleep(late)
                daemon.call(daemon.go.set)
                assert exactly(client, len(DONE)) == DONE
                begun = time.monotonic()
                assert exactly(client, 1) == b""
                tap.process.communicate(timeout=PATIENCE)
                took = time.monotonic() - begun
            assert tap.process.returncode == 0
            assert [entry["broken"] for entry in tap.transactions()] == [None]
    assert took < DRAIN - late - 1


def test_a_slow_reader_has_its_answer_whole(tmp_path: Path) -> None:
    """The daemon has said all of it, but the client has not taken the end of it yet."""
    body = bytes(range(256)) * 1600  # more than a socket holds, less than two of them and a read
    long = answer(body, close=False, kind="application/octet-stream")

    async def script(connection: Connection) -> None:
        await connection.head()
        await connection.send(long)
        connection.upstream.call(connection.upstream.go.set)
        await connection.head()

    with upstream(tmp_path / "daemon", script) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            with connect(tap.path) as client:
                client.sendall(GET)
                eventually(daemon.go.is_set)
                tap.process.send_signal(signal.SIGTERM)
                eventually(lambda: not os.path.exists(tap.path))
                time.sleep(0.3)
                assert exactly(client, len(long) + 1) == long
                tap.process.communicate(timeout=PATIENCE)
            assert tap.process.returncode == 0


@pytest.mark.parametrize("how", ["a second signal", "the deadline"])
def test_what_does_not_finish(tmp_path: Path, campaign: Campaign, how: str) -> None:
    """It is given so long, or until the next signal; then it is recorded as broken off."""
    forced = how == "a second signal"
    if not forced and not campaign.full:
        pytest.skip("takes the deadline's seconds: made in a campaign")
    with upstream(tmp_path / "daemon", waits) as daemon:
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(tmp_path / "w.yaml")) as tap:
            with connect(tap.path) as client:
                client.sendall(GET)
                eventually(lambda: daemon.asked)
                begun = time.monotonic()
                tap.process.send_signal(signal.SIGTERM)
                if forced:
                    eventually(lambda: not os.path.exists(tap.path))
                    said = finish(tap, number=signal.SIGINT)
                else:
                    _, stderr = tap.process.communicate(timeout=2 * DRAIN)
                    said = stderr.splitlines()
                took = time.monotonic() - begun
            assert tap.process.returncode == 0
    assert (took < DRAIN) if forced else (DRAIN <= took < DRAIN + 3)
    assert any("waiting up to 5 s for 1 open" in line for line in said) is not forced
    [interaction] = recorded(tmp_path / "w.yaml").interactions
    assert interaction.transaction.broken == "lxdtap was stopped before the answer"
    campaign.figure(f"ends by {how}", f"after {took:.2f} s, recorded as broken off")


def test_only_our_own_socket_is_removed(tmp_path: Path) -> None:
    """If somebody else has taken the name meanwhile, it stays theirs."""
    with upstream(tmp_path / "daemon", waits) as daemon:
        with sidecar(tmp_path / "tap", daemon.path) as tap:
            os.unlink(tap.path)
            Path(tap.path).write_text("theirs")
            assert tap.stop() == 0
            assert Path(tap.path).read_text() == "theirs"
