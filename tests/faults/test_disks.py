"""Disks that fail while it is recorded: traffic goes on, the loss is told, the rest is whole."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lxdtap.cassette import files
from tests.campaign import Campaign
from tests.process.recording import (
    SLOW,
    SPOOL,
    SYNC,
    get,
    has_shown,
    recorder_of,
    recording,
    recover,
    spooled,
    targets,
)
from tests.process.tap import (
    LXDTAP,
    Served,
    answer,
    ask,
    environment,
    eventually,
    fake_daemon,
    read_until,
    sidecar,
)

from . import needs
from .running import Spread, finish
from .upstreams import serving, upstream

SIZE = 100_000
MIB = 1 << 20
BINARY = "application/octet-stream"
ASKING = """
import os, socket, sys
for number in range(int(sys.argv[1])):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.environ["LXD_SOCKET"])
        sock.sendall(b"GET /%d HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n" % number)
        size = 0
        while data := sock.recv(65536):
            size += len(data)
        print(size)
"""
"""A client: asks so often, and says how much came."""


def random_body(sock: socket.socket, served: Served) -> None:
    """Each another one, or they would lie beside the cassette but once, and fit."""
    body = random.Random(read_until(sock, served, b"\r\n\r\n")).randbytes(SIZE)
    sock.sendall(answer(body, kind=BINARY))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    with needs.disk(tmp_path / "small", MIB) as place:
        yield place


def tapped(daemon: str, times: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Have the client ask, through a tap."""
    return subprocess.run(
        [*LXDTAP, "run", *options, "--", sys.executable, "-c", ASKING, str(times)],
        env=environment(LXD_SOCKET=daemon),
        capture_output=True,
        text=True,
        timeout=SLOW,
    )


def test_the_disk_is_full(tmp_path: Path, small: Path) -> None:
    """Traffic goes on, it is told aloud, and what was recorded before is recovered."""
    path = small / "c.yaml"
    with fake_daemon(tmp_path / "lxd", random_body) as daemon:
        done = tapped(daemon.path, 30, "-q", "-w", str(path))
    assert done.returncode == 1
    assert done.stdout == f"{len(answer(bytes(SIZE), kind=BINARY))}\n" * 30
    assert done.stderr.count("the recording stops here: No space left on device") == 1
    assert done.stderr.count("see `lxdtap recover --help`") == 1
    assert not path.exists()
    found, damage = spooled(small / SPOOL)
    assert not damage
    assert 5 < len(found) < 30
    other = tmp_path / "c.yaml"
    assert recover(small / SPOOL, "-o", str(other)).returncode == 0
    cassette = files.load(str(other))
    assert targets(cassette) == [f"/{i}" for i in range(len(found))]
    assert not cassette.complete
    assert all(i.replayable for i in cassette.interactions[:-1])


def test_the_disk_of_the_log_is_full(tmp_path: Path, small: Path) -> None:
    """Traffic and the recording go on, and it is told aloud."""
    (small / "filler").write_bytes(bytes(MIB - 4096))
    path = tmp_path / "c.yaml"
    with fake_daemon(tmp_path / "lxd", random_body) as daemon:
        done = tapped(daemon.path, 30, "-v", "-o", str(small / "log"), "-w", str(path))
    assert done.stdout == f"{len(answer(bytes(SIZE), kind=BINARY))}\n" * 30
    told = "the log could not be written any more: No space left on device"
    assert done.stderr.count(told) == 1, done.stderr
    assert targets(files.load(str(path))) == [f"/{i}" for i in range(30)]


@pytest.mark.timeout(20 * SLOW)
def test_a_write_fails(tmp_path: Path, campaign: Campaign) -> None:
    """Once, any of them, is enough: what was recorded before is saved, as not complete."""
    turns = campaign.count(1, 60)
    kept = 0
    for number in campaign.progress("a write fails", range(turns), turns):
        error, which = ("EIO", "ENOSPC", "EDQUOT")[number % 3], 1 + number // 3
        (tmp_path / str(number)).mkdir()
        kept += _kept_after(tmp_path / str(number), error, which)
    campaign.figure("a write fails", f"{turns} times; {kept} transactions before it, all kept")


def _kept_after(directory: Path, error: str, which: int) -> int:
    """Have a write fail; how many transactions are kept."""
    asked = ["/first", *(f"/{count}" for count in range(which + 3))]
    with recording(directory) as (_, tap, path):
        ask(tap.path, get("/first"))
        eventually(partial(has_shown, tap, 1))
        fault = f"{needs.WRITES}:error={error}:when={which}"
        with needs.failing_at(recorder_of(tap), directory / SPOOL, fault):
            for count, target in enumerate(asked[1:], 2):
                assert SYNC in ask(tap.path, get(target))
                # Else it is written together with the next, and there are too few writes.
                eventually(partial(has_shown, tap, count))
        tap.process.send_signal(signal.SIGTERM)
        _, errors = tap.process.communicate(timeout=SLOW)
        assert tap.process.returncode == 1
        cassette = files.load(str(path))
    assert errors.count("the recording stops here") == 1
    assert not cassette.complete
    kept = len(cassette.interactions)
    assert targets(cassette) == asked[:kept]
    assert 1 <= kept < len(asked)
    return kept


@pytest.mark.timeout(20 * SLOW)
def test_a_slow_disk_holds_nobody_up(tmp_path: Path, campaign: Campaign) -> None:
    """A write takes a fifth of a second: an answer does not, and in the end all is there."""
    times = campaign.count(40, 500)
    with recording(tmp_path) as (_, tap, path):
        took = []
        fault = f"{needs.WRITES}:delay_enter=200000"
        with needs.failing_at(recorder_of(tap), tmp_path / SPOOL, fault):
            for number in range(times):
                begun = time.monotonic()
                assert SYNC in ask(tap.path, get(f"/{number}"))
                took.append(time.monotonic() - begun)
        finish(tap, 10 * SLOW)
        assert targets(files.load(str(path))) == [f"/{number}" for number in range(times)]
    assert Spread(took).quantile(0.9) < 0.1
    campaign.figure("a disk that takes 200 ms a write", f"{times} answers: {Spread(took)}; 0 lost")


@pytest.mark.timeout(2 * SLOW)
def test_a_disk_that_is_too_slow(tmp_path: Path) -> None:
    """More comes than can wait: traffic goes on, and the recording ends where it is told."""
    body = random.Random(1).randbytes(4 * MIB)
    whole = len(answer(body, kind=BINARY, close=False))
    with upstream(tmp_path / "lxd", serving(lambda _: answer(body, kind=BINARY))) as daemon:
        path = tmp_path / "c.yaml"
        with sidecar(tmp_path / "tap", daemon.path, "-w", str(path)) as tap:
            fault = f"{needs.WRITES}:delay_enter=2000000"
            with needs.failing_at(recorder_of(tap), tmp_path / SPOOL, fault):
                for number in range(24):
                    assert len(ask(tap.path, get(f"/{number}"))) >= whole
            tap.process.send_signal(signal.SIGTERM)
            _, errors = tap.process.communicate(timeout=SLOW)
        assert len(daemon.requests) == 24
    assert tap.process.returncode == 1
    assert errors.count("the recording stops here: more came than could be written") == 1
    cassette = files.load(str(path))
    assert not cassette.complete
    assert targets(cassette) == [f"/{number}" for number in range(len(cassette.interactions))]
    assert len(cassette.interactions) < 24
    for interaction in cassette.interactions[:-1]:
        response = interaction.transaction.response
        assert response is not None
        assert response.body.captured == body
